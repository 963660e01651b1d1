use Area;
print Area::rectangle(@ARGV), "\n";
