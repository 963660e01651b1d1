require "words"
puts "#{Words.join(ARGV)} (#{Process.uid})"
$stdout.flush
exec "words", *ARGV.reverse
