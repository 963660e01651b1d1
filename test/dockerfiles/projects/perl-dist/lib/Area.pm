package Area;
use strict;
use warnings;
use List::Util qw(product);

our $VERSION = '0.02';

sub of { return product(@_) }

1;
