use strict;
use warnings;
use Test::More tests => 2;
use_ok('Area');
is(Area::of(3, 4), 12, 'a rectangle');
