package Area;
sub rectangle { my ($a, $b) = @_; return $a * $b }
1;
