//! What the rules see of a Rust source: its words and paths, without comments, strings and test modules.
//!
//! A scanner, not a parser: it knows what rustfmt leaves of the language, and lines keep their numbers.

use std::ops::Range;

/// The source without comments, strings and test modules. Lines keep their numbers.
pub(crate) fn production(path: &str, text: &str) -> String {
    if is_test_file(path) {
        return String::new();
    }
    let mut code = blank(text);
    // From the end, so that the places of the others stay right.
    for module in test_modules(&code).into_iter().rev() {
        let gap = "\n".repeat(code[module.clone()].matches('\n').count());
        code.replace_range(module, &gap);
    }
    code
}

/// How many lines of a source are tests.
pub(crate) fn test_lines(path: &str, text: &str) -> usize {
    if is_test_file(path) {
        return text.lines().count();
    }
    let code = blank(text);
    let modules = test_modules(&code).into_iter();
    modules.map(|module| code[module].lines().count()).sum()
}

/// Whether a file holds nothing but tests.
fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// Where in `code`, which [`blank`] made, the modules are that are compiled only for tests.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut modules: Vec<Range<usize>> = Vec::new();
    for (start, attribute) in code.match_indices("#[cfg(") {
        let condition = &code[start + attribute.len()..];
        let for_tests = condition.starts_with("test)") || condition.starts_with("all(test,");
        let inside = modules.last().is_some_and(|last| start < last.end);
        if !for_tests || inside {
            continue;
        }
        let mut item = start;
        while code[item..].starts_with("#[") {
            item = closing(code, item + 1);
            item = code.len() - code[item..].trim_start().len();
        }
        let words = code[item..].trim_start_matches("pub(crate) ");
        if let Some(mark) = words.find(['{', ';']).filter(|_| words.starts_with("mod ")) {
            let end = closing(code, code.len() - words.len() + mark);
            modules.push(start..end);
        }
    }
    modules
}

/// Where the bracket that stands at `open` is closed; right after `open` if it is no bracket.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + i + c.len_utf8();
        }
    }
    code.len()
}

/// The source with every comment, string and character literal turned into spaces.
pub(crate) fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_len(rest)
        } else if c == '"' {
            string_len(rest)
        } else if matches!(c, 'r' | 'b' | 'c') && !after_word {
            raw_string_len(rest)
        } else if c == '\'' {
            char_len(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let (gone, left) = rest.split_at(skipped);
            code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = left;
        }
    }
    code
}

/// The length of the block comment that `rest` starts with; they nest.
fn comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string literal that `rest` starts with.
fn string_len(rest: &str) -> usize {
    let mut escaped = true; // The opening quote does not close.
    for (i, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the raw string literal that `rest` starts with, 0 if it starts with none.
fn raw_string_len(rest: &str) -> usize {
    let Some(body) = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))
    else {
        return 0;
    };
    let quoted = body.trim_start_matches('#');
    let close = format!("\"{}", "#".repeat(body.len() - quoted.len()));
    let Some(inner) = quoted.strip_prefix('"') else {
        return 0;
    };
    let end = inner
        .find(&close)
        .map_or(inner.len(), |at| at + close.len());
    rest.len() - inner.len() + end
}

/// The length of the character literal that `rest` starts with, 0 if it is a lifetime.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, c))) => {
            let after = escaped + c.len_utf8();
            rest[after..]
                .find('\'')
                .map_or(0, |close| after + close + 1)
        }
        (Some(_), Some((close, '\''))) => close + 1,
        _ => 0,
    }
}

/// A piece of code: a word, the `::` of a path, or any other mark.
#[derive(Copy, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    Word(&'a str),
    Path,
    Mark(char),
}

/// The pieces of `code`, which [`blank`] made, each with the number of its line.
pub(crate) fn tokens(code: &str) -> Vec<(usize, Token<'_>)> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        // A `::` that follows no word begins a path, as in `use ::std::fs`, and joins nothing.
        let mut joins = false;
        while let Some(c) = rest.chars().next() {
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let (token, len) = if word > 0 {
                (Token::Word(&rest[..word]), word)
            } else if joins && rest.starts_with("::") {
                (Token::Path, 2)
            } else {
                (Token::Mark(c), c.len_utf8())
            };
            found.push((line, token));
            joins = word > 0 && !rest[len..].starts_with(' ');
            rest = rest[len..].trim_start();
        }
    }
    found
}

/// The words of `code`.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    tokens(code)
        .into_iter()
        .filter_map(|(_, token)| match token {
            Token::Word(word) => Some(word),
            _ => None,
        })
}

/// A path that a source names, and the line on which it ends.
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) path: String,
}

impl Named {
    /// Whether `part` is in the path, as whole segments. A crate is so only at its start.
    pub(crate) fn has(&self, part: &str) -> bool {
        let within = format!("::{}::", self.path);
        let crates = ["tokio", "quinn", "fjall"];
        if crates.contains(&part) {
            self.path.split("::").next() == Some(part)
        } else {
            within.contains(&format!("::{part}::"))
        }
    }
}

/// Every path in `code`; of an import with braces, each of the paths that it stands for.
pub(crate) fn paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = match tokens[at].1 {
            Token::Word(_) => read_path(&tokens, at, "", &mut found),
            _ => at + 1,
        };
    }
    found
}

/// Reads the path, or the braces of paths, at `at` into `found`, each after `prefix`. Returns where it ends.
fn read_path(
    tokens: &[(usize, Token<'_>)],
    at: usize,
    prefix: &str,
    found: &mut Vec<Named>,
) -> usize {
    let Some((line, token)) = tokens.get(at).copied() else {
        return at;
    };
    let segment = match token {
        Token::Word(word) => word,
        Token::Mark('*') => "*",
        Token::Mark('{') => {
            let mut at = at + 1;
            while tokens
                .get(at)
                .is_some_and(|(_, token)| *token != Token::Mark('}'))
            {
                at = read_path(tokens, at, prefix, found);
            }
            return at + 1;
        }
        _ => return at + 1,
    };
    let path = format!("{prefix}{segment}");
    let next = |ahead: usize| tokens.get(at + ahead).map(|(_, token)| *token);
    match (next(1), next(2)) {
        (Some(Token::Path), Some(Token::Word(_) | Token::Mark('{' | '*'))) => {
            read_path(tokens, at + 2, &format!("{path}::"), found)
        }
        (Some(Token::Word("as")), Some(Token::Word(_))) if !prefix.is_empty() => {
            found.push(Named { line, path });
            at + 3
        }
        _ => {
            found.push(Named { line, path });
            at + 1
        }
    }
}
