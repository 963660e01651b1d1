// Package words has a dependency's part.
package words

import "strings"

// Title puts a greeting together.
func Title(parts ...string) string { return strings.Join(parts, " ") }
