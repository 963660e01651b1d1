# frozen_string_literal: true

module Words
  def self.join(words)
    words.map(&:capitalize).join(" and ")
  end
end
