//! How a line is cut into words: at blanks, as a POSIX shell does it. `'...'` keeps everything, `"..."` everything but
//! `\"` and `\\`, and outside of quotes a `\` keeps the next character. Nothing is ever expanded.

/// Cuts a line into its words.
///
/// # Errors
/// A quote or a `\` at the end of the line.
pub(super) fn split(line: &str) -> Result<Vec<String>, Unfinished> {
    let scanned = scan(line);
    match scanned.state {
        State::Quoted(quote) => Err(Unfinished::Quote(quote)),
        State::Escaped(_) => Err(Unfinished::Backslash),
        State::Blank | State::Word => Ok(scanned.words.into_iter().map(|(_, word)| word).collect()),
    }
}

/// Cuts what is typed so far: the finished words, and the one at the end, perhaps empty, with the byte at which it
/// begins.
pub(super) fn split_typed(typed: &str) -> (Vec<String>, usize, String) {
    let mut scanned = scan(typed);
    let last = match scanned.state {
        State::Blank => None,
        _ => scanned.words.pop(),
    };
    let (start, last) = last.unwrap_or((typed.len(), String::new()));
    let words = scanned.words.into_iter().map(|(_, word)| word).collect();
    (words, start, last)
}

/// A word as it has to be typed.
pub(super) fn escape(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for (at, character) in word.chars().enumerate() {
        let is_plain = match character {
            '#' | '~' => at > 0,
            ' ' | '\\' | '\'' | '"' => false,
            _ => !character.is_whitespace(),
        };
        if !is_plain {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Why a line is not whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfinished {
    #[error("the quote {0} is not closed")]
    Quote(char),
    #[error("there is nothing after the last \\")]
    Backslash,
}

struct Scanned {
    /// With where each begins.
    words: Vec<(usize, String)>,
    state: State,
}

#[derive(Copy, Clone)]
enum State {
    Blank,
    Word,
    Quoted(char),
    /// After a `\`, within these quotes if any.
    Escaped(Option<char>),
}

fn scan(line: &str) -> Scanned {
    let (mut words, mut state) = (Vec::<(usize, String)>::new(), State::Blank);
    for (at, character) in line.char_indices() {
        if matches!(state, State::Blank) && !character.is_whitespace() {
            words.push((at, String::new()));
            state = State::Word;
        }
        let Some((_, word)) = words.last_mut() else {
            continue;
        };
        state = match (state, character) {
            (State::Blank | State::Word, blank) if blank.is_whitespace() => State::Blank,
            (State::Blank | State::Word, quote @ ('\'' | '"')) => State::Quoted(quote),
            (State::Blank | State::Word, '\\') => State::Escaped(None),
            (State::Quoted(quote), end) if quote == end => State::Word,
            (State::Quoted('"'), '\\') => State::Escaped(Some('"')),
            (State::Escaped(quote), escaped) => {
                if quote.is_some() && !matches!(escaped, '"' | '\\') {
                    word.push('\\');
                }
                word.push(escaped);
                quote.map_or(State::Word, State::Quoted)
            }
            (state, character) => {
                word.push(character);
                state
            }
        };
    }
    Scanned { words, state }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_does() {
        for (line, expected) in [
            ("", &[][..]),
            ("  a \tb  ", &["a", "b"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            (r#"a\ b "c\"d\\\e" 'f\'"#, &["a b", r#"c"d\\e"#, r"f\"]),
            (r#"x'y'"z" '' "" -"#, &["xyz", "", "", "-"]),
            ("$HOME *.txt a;b", &["$HOME", "*.txt", "a;b"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        assert_eq!(split("a 'b"), Err(Unfinished::Quote('\'')));
        assert_eq!(split("a \"b\\"), Err(Unfinished::Backslash));
    }

    #[test]
    fn what_is_typed_ends_in_the_word_to_complete() {
        let typed = |typed| {
            let (words, start, last) = split_typed(typed);
            (words.join("|"), start, last)
        };
        let expect = |words: &str, start, last: &str| (words.to_owned(), start, last.to_owned());
        assert_eq!(typed(""), expect("", 0, ""));
        assert_eq!(typed("log"), expect("", 0, "log"));
        assert_eq!(typed("login "), expect("login", 6, ""));
        assert_eq!(typed("a b\\ c 'd e"), expect("a|b c", 7, "d e"));
    }

    proptest! {
        #[test]
        fn an_escaped_word_is_one_word(words in proptest::collection::vec("[^\\x00-\\x1f]{1,20}", 1..4)) {
            let line = words.iter().map(|word| escape(word)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line).unwrap(), words);
        }
    }
}
