//! Whether an answer is right.
//!
//! As in the metric of VQA v2 (Antol et al. 2015, "Accuracy"; `vqaEval.py` of the VQA API), case, articles, punctuation
//! and apostrophes do not count, and the words from zero to ten are digits. Without apostrophes its list of contractions
//! is not needed. Here each question has one right answer, not ten.

/// How answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// As VQA's metric does.
    Vqa,
    /// Letter by letter, except for spaces at both ends.
    Literally,
}

impl Compare {
    /// Whether `answer` is the `right` one.
    pub fn is_right(self, answer: &str, right: &str) -> bool {
        match self {
            Self::Literally => answer.trim() == right.trim(),
            Self::Vqa => {
                let expected = normalised(right);
                // Nothing is left of a right answer such as `the`: then its letters are compared.
                if expected.is_empty() {
                    return answer.trim().eq_ignore_ascii_case(right.trim());
                }
                normalised(answer) == expected
            }
        }
    }

    /// One line for the reader of the table.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Vqa => "answers are compared as VQA's metric does (--exact: literally)",
            Self::Literally => "answers are compared literally",
        }
    }
}

const ARTICLES: [&str; 3] = ["a", "an", "the"];
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// An answer as it is compared: words with one space between them.
fn normalised(answer: &str) -> String {
    let characters: Vec<char> = answer.to_lowercase().chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_digit);
    let mut plain = String::new();
    for (i, &c) in characters.iter().enumerate() {
        let between = digit(i.checked_sub(1)) && digit(Some(i + 1));
        match c {
            '\'' | '’' | '‘' | '`' => {}
            // 1,000 is 1000, and 3.5 stays.
            ',' if between => {}
            '.' if digit(Some(i + 1)) => plain.push('.'),
            '.' => {}
            // Signs and units have a meaning.
            '-' if digit(Some(i + 1)) && !i.checked_sub(1).is_some_and(|at| characters[at].is_alphanumeric()) => {
                plain.push('-')
            }
            '%' | '$' | '€' | '£' | '°' | '&' | '#' | '*' => plain.push(c),
            c if c.is_alphanumeric() || is_mark(c) => plain.push(c),
            c if c.is_ascii_punctuation() || c.is_whitespace() || !c.is_ascii() => plain.push(' '),
            c => plain.push(c),
        }
    }
    let words = plain.split_whitespace().filter(|word| !ARTICLES.contains(word));
    let words = words.map(|word| NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digits)| digits));
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a character belongs to the letter before it, or is not punctuation of a script.
fn is_mark(c: char) -> bool {
    let punctuation = [
        '。', '、', '！', '？', '，', '．', '：', '；', '（', '）', '「', '」', '…', '“', '”', '«', '»', '¿', '¡', '–',
        '—', '،', '؟', '۔', '।',
    ];
    !c.is_ascii() && !c.is_whitespace() && !punctuation.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_articles_punctuation_and_number_words_do_not_count() {
        for (answer, right) in [
            ("EXIT", "exit"),
            ("Exit.", "exit"),
            (" exit \n", "exit"),
            ("The exit!", "exit"),
            ("Yes.", "yes"),
            ("\"Yes\"", "yes"),
            ("Two", "2"),
            ("none", "0"),
            ("ten", "10"),
            ("1,000", "1000"),
            ("3.5", "3.5"),
            ("$3.50.", "$3.50"),
            ("-5", "-5"),
            ("a red-brick house", "red brick house"),
            ("red/blue", "red blue"),
            ("don't", "dont"),
            ("It’s", "its"),
            ("STOP\nsign", "stop sign"),
            ("看板。", "看板"),
            ("Café", "café"),
        ] {
            assert!(Compare::Vqa.is_right(answer, right), "{answer:?} for {right:?}: {:?}", normalised(answer));
            assert!(Compare::Vqa.is_right(right, answer), "{right:?} for {answer:?}");
        }
    }

    #[test]
    fn other_answers_are_wrong() {
        for (answer, right) in [
            ("exits", "exit"),
            ("5", "-5"),
            ("35", "3.5"),
            ("", "exit"),
            ("the", "exit"),
            ("no exit", "exit"),
            ("12", "1 2"),
        ] {
            assert!(!Compare::Vqa.is_right(answer, right), "{answer:?} for {right:?}: {:?}", normalised(answer));
        }
        assert!(Compare::Vqa.is_right("The", "the") && !Compare::Vqa.is_right("a", "the"));
    }

    #[test]
    fn literally_only_spaces_at_the_ends_do_not_count() {
        assert!(Compare::Literally.is_right(" exit\n", "exit"));
        assert!(!Compare::Literally.is_right("Exit", "exit") && !Compare::Literally.is_right("exit.", "exit"));
    }
}
