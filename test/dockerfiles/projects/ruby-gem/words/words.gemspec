Gem::Specification.new do |s|
  s.name = "words"
  s.version = "0.3.0"
  s.summary = "Words"
  s.authors = ["Somebody"]
  s.homepage = "https://example.org/words"
  s.license = "MIT"
  s.required_ruby_version = ">= 2.7"
  s.files = ["lib/words.rb", "bin/words"]
  s.executables = ["words"]
end
