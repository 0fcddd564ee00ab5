//! Keeps the floors of the house: who may import whom, which modules stay pure, and what no file may be or do.
//!
//! The compiler sees one crate and would let any module use any other; this test stands in for it. Each rule is a function
//! of a path and a source text, so that the tests at the end can show on made-up sources that it bites, and on what not.
//! Comments, strings and test modules are taken out before a rule looks, so that prose may name what code may not.

#![expect(
    clippy::expect_used,
    reason = "a tree that cannot be read fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::{Named, Token, blank, paths, production, test_lines, tokens, words};

#[path = "tidy/source.rs"]
mod source;

/// The rooms of the library from the ground up, each with those that its production code may import from.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &["limits"]),
    ("identity", &["limits", "time"]),
    ("content", &["limits", "time"]),
    ("wire", &["limits", "time", "identity", "content"]),
    (
        "transport",
        &["limits", "time", "identity", "content", "wire"],
    ),
    ("store", &["limits", "time", "identity", "content", "wire"]),
    (
        "dht",
        &[
            "limits",
            "time",
            "identity",
            "content",
            "wire",
            "transport",
            "store",
        ],
    ),
    (
        "tracker",
        &[
            "limits",
            "time",
            "identity",
            "content",
            "wire",
            "transport",
            "store",
            "dht",
        ],
    ),
    (
        "peer",
        &[
            "limits",
            "time",
            "identity",
            "content",
            "wire",
            "transport",
            "store",
        ],
    ),
];

/// What stands above the rooms and may import from all of them: the façade, what opens it to benches and fuzz, the simulator,
/// and the tests of more than one room.
const ABOVE: &[&str] = &["lib", "internals", "sim", "golden", "hostile"];

/// The modules that think and never act: a whole folder when it ends in `/`.
const PURE: &[&str] = &[
    "identity/",
    "content/",
    "wire/",
    "dht/clock.rs",
    "dht/coordinator.rs",
    "dht/founding.rs",
    "dht/hash_tree.rs",
    "dht/lease.rs",
    "dht/lease/",
    "dht/machine.rs",
    "dht/meetings.rs",
    "dht/membership/rumour.rs",
    "dht/paging.rs",
    "dht/placement.rs",
    "dht/promises.rs",
    "dht/quorum.rs",
    "dht/register.rs",
    "dht/rejoin.rs",
    "dht/repair.rs",
    "dht/replica.rs",
    "dht/row.rs",
    "dht/row_key.rs",
    "dht/task.rs",
    "tracker/fair.rs",
    "tracker/swarms/crowd.rs",
    "tracker/swarms/room.rs",
    "tracker/swarms/held.rs",
    "tracker/throttle.rs",
    "peer/download/stall.rs",
    "peer/pace.rs",
    "peer/picker.rs",
    "peer/picker/",
    "peer/seed/places.rs",
    "peer/seed/turns.rs",
];

/// The drivers within the folders of [`PURE`].
const DRIVERS: &[&str] = &["identity/key_file.rs"];

/// What no pure module names: sockets, tasks, files, clocks, and randomness that nobody handed in.
const ACTS: &[&str] = &[
    "tokio",
    "quinn",
    "fjall",
    "std::fs",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "rand::random",
    "thread_rng",
    "ThreadRng",
    "SysRng",
    "OsRng",
    "SystemRandom",
];

/// Names of drawers into which anything would fit.
const DRAWERS: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

/// The longest that a file may be without its test modules, in lines.
const LINES_MAX: usize = 800;

#[test]
fn the_tree_is_tidy() {
    let found: Vec<String> = tree()
        .iter()
        .flat_map(|(path, text)| {
            let rules = [
                check_imports,
                check_pure,
                check_name,
                check_length,
                check_sleep,
            ];
            rules.into_iter().flat_map(|rule| rule(path, text))
        })
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_limit_is_read() {
    let found = check_limits(&tree());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

// The rules.

/// Imports point down, name the room that owns what they import, and never the façade.
fn check_imports(path: &str, text: &str) -> Vec<String> {
    let Some(inside) = path.strip_prefix("p2pshare/src/") else {
        return Vec::new();
    };
    let module = module_of(inside);
    let room = module.first().copied().unwrap_or("lib");
    if ABOVE.contains(&room) {
        return Vec::new();
    }
    let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{path}: `{room}` is no room of the house; tidy.rs lists them"
        )];
    };
    let code = production(path, text);
    let mut found = Vec::new();
    for Named { line, path: named } in paths(&code) {
        let Some(target) = target_of(&module, &named) else {
            continue;
        };
        if target == room || below.contains(&target) {
            continue;
        }
        let known = ROOMS.iter().any(|(name, _)| *name == target) || ABOVE.contains(&target);
        let why = if known {
            format!("`{room}` may not import from `{target}`")
        } else {
            format!("`{target}` is no room; name the one that owns it")
        };
        found.push(format!("{path}:{line}: {named}: {why}"));
    }
    found
}

/// A pure module takes time, randomness and messages as arguments.
fn check_pure(path: &str, text: &str) -> Vec<String> {
    let Some(inside) = path.strip_prefix("p2pshare/src/") else {
        return Vec::new();
    };
    let listed = |list: &[&str]| {
        list.iter()
            .any(|entry| inside == *entry || entry.ends_with('/') && inside.starts_with(entry))
    };
    if !listed(PURE) || listed(DRIVERS) {
        return Vec::new();
    }
    let code = production(path, text);
    let acts = paths(&code)
        .into_iter()
        .filter(|named| ACTS.iter().any(|act| named.has(act)));
    let mut found: Vec<String> = acts
        .map(|named| format!("{path}:{}: {}: this module is pure", named.line, named.path))
        .collect();
    for window in tokens(&code).windows(3) {
        if let [
            (_, Token::Mark('.')),
            (line, Token::Word("elapsed")),
            (_, Token::Mark('(')),
        ] = window
        {
            found.push(format!(
                "{path}:{line}: elapsed() reads the clock: this module is pure"
            ));
        }
    }
    found
}

/// A file or folder is called by its one idea.
fn check_name(path: &str, _: &str) -> Vec<String> {
    let parts = path.trim_end_matches(".rs").split('/');
    parts
        .filter(|part| DRAWERS.contains(part))
        .map(|part| format!("{path}: `{part}` names no idea; name the one that it holds"))
        .collect()
}

/// A file is short enough to hold one idea.
fn check_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count() - test_lines(path, text);
    if lines > LINES_MAX {
        vec![format!(
            "{path}: {lines} lines without its tests, of at most {LINES_MAX}; what is the second idea?"
        )]
    } else {
        Vec::new()
    }
}

/// Nothing waits by sleeping, tests least of all.
fn check_sleep(path: &str, text: &str) -> Vec<String> {
    let code = blank(text);
    let sleeps = paths(&code)
        .into_iter()
        .filter(|named| named.has("thread::sleep"));
    sleeps
        .map(|named| format!("{path}:{}: {}: wait on an event", named.line, named.path))
        .collect()
}

/// Every constant of `limits.rs` bounds something: production code elsewhere reads it.
fn check_limits(files: &[(String, String)]) -> Vec<String> {
    let limits = "p2pshare/src/limits.rs";
    let library = files
        .iter()
        .filter(|(path, _)| path.starts_with("p2pshare/src/"));
    let (own, others): (Vec<_>, Vec<_>) = library.partition(|(path, _)| path == limits);
    let others: Vec<String> = others
        .iter()
        .map(|(path, text)| production(path, text))
        .collect();
    let read: BTreeSet<&str> = others.iter().flat_map(|code| words(code)).collect();
    let mut found = Vec::new();
    for (path, text) in own {
        for window in tokens(&production(path, text)).windows(2) {
            if let [(_, Token::Word("const")), (line, Token::Word(name))] = window
                && *name != "_"
                && !read.contains(name)
            {
                found.push(format!(
                    "{path}:{line}: {name} bounds nothing: nobody reads it"
                ));
            }
        }
    }
    found
}

// What the rules look at.

/// Every Rust source of the workspace, with its path from the root.
fn tree() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace");
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace can be listed") {
            let path = entry
                .expect("a folder of the workspace can be listed")
                .path();
            let inside = path
                .strip_prefix(root)
                .expect("the walk starts at the root");
            let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
            let name = parts.last().map_or("", |name| name);
            // Where cargo builds may be called anything, but is marked.
            let skipped = name.starts_with('.') || path.join("CACHEDIR.TAG").exists();
            if path.is_dir() && !skipped {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source is readable UTF-8");
                files.push((parts.join("/"), text));
            }
        }
    }
    files.sort();
    assert!(
        files.iter().any(|(path, _)| path == "p2pshare/src/lib.rs"),
        "the walk missed the library"
    );
    files
}

/// The module that a file of the library is, from the crate's root.
fn module_of(inside: &str) -> Vec<&str> {
    let mut module: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if module.last().is_some_and(|last| *last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The first module below the crate's root that a path leads to, if the path starts at the crate or goes up.
fn target_of<'a>(module: &[&'a str], named: &'a str) -> Option<&'a str> {
    let mut parts = named.split("::").peekable();
    if parts.next_if_eq(&"crate").is_some() {
        return parts.next();
    }
    parts.next_if_eq(&"self");
    let mut ups = 0;
    while parts.next_if_eq(&"super").is_some() {
        ups += 1;
    }
    match module.len().checked_sub(ups) {
        Some(0) if ups > 0 => parts.next(),
        _ => None,
    }
}

/// The rules bite, and none by mistake.
mod bites {
    use super::*;

    type Rule = fn(&str, &str) -> Vec<String>;

    /// The lines of `text` that `rule` complains of.
    fn lines(rule: Rule, path: &str, text: &str) -> Vec<usize> {
        let line = |complaint: String| {
            complaint
                .strip_prefix(path)
                .and_then(|rest| rest.split(':').nth(1)?.parse().ok())
        };
        rule(path, text)
            .into_iter()
            .map(|complaint| line(complaint).unwrap_or(0))
            .collect()
    }

    fn assert_bites(rule: Rule, path: &str, text: &str) {
        assert!(!rule(path, text).is_empty(), "{path} passes:\n{text}");
    }

    fn assert_passes(rule: Rule, path: &str, text: &str) {
        assert_eq!(rule(path, text), Vec::<String>::new(), "{path}:\n{text}");
    }

    #[test]
    fn rooms_stand_on_those_before_them() {
        for (i, (room, below)) in ROOMS.iter().enumerate() {
            for name in *below {
                assert!(
                    ROOMS[..i].iter().any(|(lower, _)| lower == name),
                    "{room} stands on {name}"
                );
            }
        }
        let siblings = [
            ("transport", "store"),
            ("identity", "content"),
            ("peer", "dht"),
            ("peer", "tracker"),
        ];
        for (a, b) in siblings {
            assert_bites(
                check_imports,
                &format!("p2pshare/src/{a}/x.rs"),
                &format!("use crate::{b}::X;"),
            );
        }
    }

    #[test]
    fn imports_that_point_up() {
        for text in [
            "use crate::dht::Row;",
            "use crate::dht;",
            "pub(crate) use crate::dht::Row;",
            "use crate::{identity::PeerId, dht::Row};",
            "use crate::{\n    identity::{self, PeerId},\n    dht::{register::{Ballot as B}, Row},\n};",
            "fn f() { let x = crate::dht::row(); }",
            "fn f(x: &'a crate::dht::Row) {}",
            "use super::super::dht::Row;",
            "use super::{super::dht::Row};",
            "use crate::sim::World;",
            "use crate::internals::x;",
            "use crate::PeerId;",
            "use crate::*;",
            "use super::super::*;",
            "#[cfg(test)]\nmod tests {}\nuse crate::dht::Row;",
            "#[cfg(test)]\nuse crate::dht::Row;",
            "#[cfg(any(test, feature = \"__sim\"))]\nmod sim { use crate::dht::Row; }",
        ] {
            assert_bites(check_imports, "p2pshare/src/wire/ring.rs", text);
        }
        assert_bites(
            check_imports,
            "p2pshare/src/wire/mod.rs",
            "use super::dht::Row;",
        );
        assert_bites(
            check_imports,
            "p2pshare/src/limits.rs",
            "use crate::content::CHUNK_SIZE;",
        );
        assert_bites(
            check_imports,
            "p2pshare/src/time.rs",
            "use super::identity::PeerId;",
        );
        assert_bites(check_imports, "p2pshare/src/swarm/mod.rs", "");
        assert_bites(check_imports, "p2pshare/src/swarm.rs", "");
        let text = "use std::fmt;\n\n/* a\n b */ use crate::dht::Row;\n";
        assert_eq!(lines(check_imports, "p2pshare/src/wire/ring.rs", text), [4]);
    }

    #[test]
    fn imports_that_point_down() {
        for text in [
            "use crate::identity::PeerId;",
            "use crate::{content::Digest, identity::{PeerId, RingId as Ring}, limits::*};",
            "use super::frame::Message;",
            "use super::super::content::Digest;",
            "use crate::wire::frame;",
            "pub(crate) struct X(pub(crate) u8);",
            "pub(in crate::wire) fn f() {}",
            "//! Read by [`crate::dht::Row`].\n/// See `crate::dht`.\nfn f() {}",
            "/* use crate::dht::Row; /* nested */ use crate::dht::Row; */",
            "const A: &str = \"use crate::dht::Row; \\\" crate::dht::Row\";",
            "const A: &str = r#\"use crate::dht::Row; \" crate::dht::Row\"#;",
            "const A: &[u8] = br\"crate::dht::Row\"; const B: [char; 3] = ['\"', '\\'', '\\u{22}'];",
            "#[cfg(test)]\nmod tests {\n    use crate::dht::Row;\n    mod inner {}\n    use crate::dht::Row;\n}",
            "#[cfg(test)]\n#[allow(clippy::x)]\npub(crate) mod tests {\n    use crate::dht::Row;\n}",
            "#[cfg(all(test, unix))]\nmod tests {\n    use crate::dht::Row;\n}",
            "fn f<'a>(x: &'a str) -> &'a str { x }",
            "use other::crate_name::dht::Row; use dht::Row;",
        ] {
            assert_passes(check_imports, "p2pshare/src/wire/ring.rs", text);
        }
        let up = "use crate::dht::Row;";
        for free in [
            "lib.rs",
            "internals.rs",
            "internals/dht.rs",
            "sim/mod.rs",
            "wire/tests.rs",
            "wire/tests/x.rs",
        ] {
            assert_passes(check_imports, &format!("p2pshare/src/{free}"), up);
        }
        assert_passes(check_imports, "p2pshare-cli/src/main.rs", up);
        assert_passes(check_imports, "p2pshare/src/tracker/service.rs", up);
        assert_passes(
            check_imports,
            "p2pshare/src/tracker/mod.rs",
            "use super::dht::Row; use self::x::Y;",
        );
        assert_passes(
            check_imports,
            "p2pshare/src/peer/mod.rs",
            "use crate::store::Store;",
        );
    }

    #[test]
    fn pure_modules_that_act() {
        for text in [
            "use tokio::sync::mpsc;",
            "use tokio;",
            "use ::quinn::Connection;",
            "async fn f() { tokio::task::yield_now().await }",
            "fn f(x: quinn::Connection) {}",
            "use fjall::Keyspace;",
            "use std::fs;",
            "use std::fs::File;",
            "use std::{fmt, fs::File, io};",
            "use std::{\n    fmt,\n    fs,\n};",
            "fn f() { let now = std::time::Instant::now(); }",
            "fn f() { let now = Instant::now(); }",
            "fn f() { let now = SystemTime::now(); }",
            "fn f(start: Instant) -> Duration { start.elapsed() }",
            "fn f() -> u8 { rand::random() }",
            "fn f() -> u8 { rand::random::<u8>() }",
            "fn f() { let mut rng = rand::rng(); }",
            "use rand::{Rng, thread_rng};",
            "use rand::rngs::SysRng;",
            "use ring::rand::SystemRandom;",
        ] {
            let pure = [
                "identity/key.rs",
                "content/chunk.rs",
                "wire/mod.rs",
                "dht/register.rs",
                "dht/coordinator.rs",
                "dht/task.rs",
                "dht/row_key.rs",
                "tracker/fair.rs",
                "tracker/throttle.rs",
                "peer/picker.rs",
                "peer/picker/",
            ];
            for path in pure {
                assert_bites(check_pure, &format!("p2pshare/src/{path}"), text);
            }
            let driven = [
                "identity/key_file.rs",
                "dht/node.rs",
                "peer/download.rs",
                "store/mod.rs",
                "lib.rs",
            ];
            for path in driven {
                assert_passes(check_pure, &format!("p2pshare/src/{path}"), text);
            }
            assert_passes(check_pure, "p2pshare-cli/src/content/mod.rs", text);
        }
        let text = "fn f() {\n    let a = 'x';\n    Instant::now();\n}\n";
        assert_eq!(
            lines(check_pure, "p2pshare/src/content/chunk.rs", text),
            [3]
        );
    }

    #[test]
    fn pure_modules_that_only_speak_of_acting() {
        for text in [
            "//! No tokio::sync, no std::fs.\nfn f() {} // Instant::now()",
            "const A: &str = \"tokio::sync Instant::now()\";",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { Instant::now(); }\n}\n",
            "use std::time::{Duration, Instant};\nfn f(now: Instant, at: Instant) { now.duration_since(at); }",
            "use rand::Rng;\nfn f(rng: &mut impl Rng) -> u64 { rng.random() }",
            "use ring::rand::SecureRandom;",
            "use std::fmt; use std::net::SocketAddr;",
            "fn tokio_like(my_tokio: u8, report: Report) -> Duration { report.elapsed }",
            "use crate::wire::quinn_like; mod fjall_rows {}",
        ] {
            assert_passes(check_pure, "p2pshare/src/content/chunk.rs", text);
        }
    }

    #[test]
    fn drawers() {
        for path in [
            "p2pshare/src/utils.rs",
            "p2pshare/src/peer/helpers.rs",
            "p2pshare/src/peer/common/mod.rs",
            "p2pshare-cli/src/misc.rs",
            "p2pshare/tests/common/mod.rs",
            "benches/benches/util.rs",
        ] {
            assert_bites(check_name, path, "");
        }
        for path in [
            "p2pshare/src/peer/download.rs",
            "p2pshare/src/dht/commonly.rs",
            "fuzz/fuzz_targets/bitfield.rs",
        ] {
            assert_passes(check_name, path, "");
        }
    }

    #[test]
    fn long_files() {
        let lines = |count: usize| "fn f() {}\n".repeat(count);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(900));
        let path = "p2pshare-cli/src/main.rs";
        assert_passes(check_length, path, &lines(800));
        assert_bites(check_length, path, &lines(801));
        assert_passes(check_length, path, &(lines(800) + &tests));
        assert_bites(check_length, path, &(lines(801) + &tests));
        assert_bites(check_length, path, &(lines(400) + &tests + &lines(401)));
        assert_bites(
            check_length,
            path,
            &(String::from("#[cfg(test)]\nmod tests;\n") + &lines(801)),
        );
        assert_bites(
            check_length,
            path,
            &(String::from("#[cfg(test)]\nuse x::y;\n") + &lines(801)),
        );
        assert_passes(check_length, "p2pshare/tests/walk.rs", &lines(900));
        assert_passes(check_length, "p2pshare/src/store/tests.rs", &lines(900));
    }

    #[test]
    fn sleepers() {
        for text in [
            "fn f() { std::thread::sleep(d) }",
            "use std::thread;\nfn f() { thread::sleep(d) }",
            "use std::thread::sleep;",
            "use std::{thread::{self, sleep}, time};",
            "#[cfg(test)]\nmod tests {\n    fn f() { std::thread::sleep(d) }\n}",
        ] {
            assert_bites(check_sleep, "p2pshare-cli/tests/walk.rs", text);
            assert_bites(check_sleep, "p2pshare/src/store/writer.rs", text);
        }
        for text in [
            "// thread::sleep",
            "async fn f() { tokio::time::sleep(d).await }",
            "std::thread::spawn(f);",
        ] {
            assert_passes(check_sleep, "p2pshare/src/store/writer.rs", text);
        }
    }

    #[test]
    fn limits_that_bound_nothing() {
        let limits = "/// A.\npub(crate) const A: u32 = 1;\npub const B: u32 = A + 1;\nconst _: () = assert!(A < B);\n";
        let check = |path: &str, other: &str| {
            let files = [("p2pshare/src/limits.rs", limits), (path, other)];
            check_limits(&files.map(|(path, text)| (path.to_string(), text.to_string())))
        };
        let peer = "p2pshare/src/peer/mod.rs";
        assert_eq!(check(peer, "use crate::limits::{A, B};").len(), 0);
        assert_eq!(
            check(peer, "fn f() -> u32 { limits::A + limits::B }").len(),
            0
        );
        let found = check(peer, "use crate::limits::A;");
        assert_eq!(
            found,
            ["p2pshare/src/limits.rs:3: B bounds nothing: nobody reads it"]
        );
        for unread in [
            "// A B",
            "const X: &str = \"A B\";",
            "struct AB; fn a_b() { A_B }",
            "#[cfg(test)]\nmod tests {\n    use crate::limits::{A, B};\n}",
        ] {
            assert_eq!(check(peer, unread).len(), 2, "{unread}");
        }
        assert_eq!(check("p2pshare/tests/walk.rs", "use x::{A, B};").len(), 2);
    }
}
