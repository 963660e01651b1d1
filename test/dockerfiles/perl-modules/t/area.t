use Area;
die "wrong" unless Area::rectangle(2, 5) == 10;
