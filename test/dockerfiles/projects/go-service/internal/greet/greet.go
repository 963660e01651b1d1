package greet

import "example.org/words"

func Greet(who string) string { return words.Title("hello", who) }
