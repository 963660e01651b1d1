pub fn letters(words: &[String]) -> usize {
    words.iter().map(|word| word.chars().count()).sum()
}
