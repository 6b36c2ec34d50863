//! The house rules that a compiler does not check: which module may import which, where a crate is at home, how long a
//! file may be, and that nothing unfinished lands. Every message names file, line and rule.
//!
//! Paths are found in the text (comments and strings taken out, `use` trees unfolded), up to the first unit test of a
//! file: tests may use what they like.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// What each module may import of the crate, lowest first. `storage::codec` is that part of `storage` only.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("limits", &[]),
    ("metrics", &[]),
    ("model", &["error", "limits"]),
    ("proto", &["error", "limits", "model"]),
    ("client", &["error", "limits", "model", "proto"]),
    ("contract", &["error", "limits", "model", "client"]),
    ("environment", &["error", "limits"]),
    ("config", &["error", "limits", "model", "environment"]),
    ("security", &["error", "limits", "model", "environment", "config"]),
    ("storage", &["error", "limits", "model", "environment"]),
    // Not `limits`: a limit may change with a release, what apply does may not.
    ("state", &["error", "model", "storage"]),
    (
        "raft",
        &["error", "limits", "metrics", "model", "proto", "environment", "config", "security", "storage", "state"],
    ),
    (
        "node",
        &[
            "error",
            "limits",
            "metrics",
            "model",
            "proto",
            "environment",
            "config",
            "security",
            "storage",
            "state",
            "raft",
        ],
    ),
    ("layers", &["error", "limits", "model", "storage::codec", "state"]),
    ("service", &["error", "limits", "model", "state", "node", "layers"]),
    (
        "rpc",
        &[
            "error",
            "limits",
            "metrics",
            "model",
            "proto",
            "environment",
            "config",
            "security",
            "state",
            "raft",
            "node",
            "layers",
            "service",
        ],
    ),
    (
        "server",
        &[
            "error",
            "limits",
            "model",
            "proto",
            "environment",
            "config",
            "security",
            "storage",
            "state",
            "raft",
            "node",
            "layers",
            "service",
            "rpc",
        ],
    ),
    (
        "backends",
        &[
            "error",
            "limits",
            "model",
            "contract",
            "environment",
            "config",
            "storage",
            "state",
            "node",
            "layers",
            "service",
            "server",
        ],
    ),
    ("sqlite", &["error", "model", "environment", "state", "service", "backends"]),
    (
        "cli",
        &[
            "error",
            "limits",
            "model",
            "proto",
            "client",
            "contract",
            "environment",
            "config",
            "security",
            "node",
            "rpc",
            "server",
        ],
    ),
    ("main", &["cli"]),
];

/// Where a path may be named, and nowhere else.
const HOMES: &[(&str, &[&str])] = &[
    ("sled", &["src/storage/"]),
    ("rusqlite", &["src/sqlite/"]),
    ("openraft", &["src/raft/"]),
    ("openraft_rt", &["src/raft/"]),
    ("openraft_rt_tokio", &["src/raft/"]),
    ("openraft_macros", &["src/raft/"]),
    ("clap", &["src/cli/"]),
    ("comfy_table", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    // A person's files are the command line's business, so are the files that it makes for TLS; the configuration's file is
    // its own, and sled opens its files itself, whatever our disk is.
    (
        "std::fs",
        &[
            "src/environment/",
            "src/cli/",
            "src/main.rs",
            "src/config.rs",
            "src/config/",
            "src/security/mod.rs",
            "src/storage/sled.rs",
        ],
    ),
    ("rcgen", &["src/security/"]),
    ("ring", &["src/security/"]),
    ("tokio_rustls", &["src/security/"]),
    ("x509_parser", &["src/security/"]),
    ("std::time::SystemTime", &["src/environment/"]),
    ("std::time::Instant", &["src/environment/"]),
];

/// Where a path may not be named.
const BANNED: &[(&str, &[&str])] = &[
    ("tonic", &["src/layers/", "src/state/", "src/storage/", "src/model/"]),
    ("tokio", &["src/state/", "src/model/"]),
];

/// What nothing that lands may contain, also in comments.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "simplified", "for now"];

const LINES: usize = 500;

/// A source file: its path from the package's root, its text, and that without comments, strings and tests.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let (mut found, mut open) = (Vec::new(), vec![root().join("src")]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = without_tests(&code_of(&text));
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text, code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "the sources are in src");
    found
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The text with comments and the inside of strings and characters as blanks; lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"', ..] | ['r', '#', '"', ..] | ['r', '#', '#', ..] if !after_word(&chars, at) => raw_string(rest),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest[2..].iter().skip(1).position(|c| *c == '\'').map_or(1, |end| end + 2),
            ['\'', _, '\'', ..] => 3,
            [c, ..] => {
                code.push(*c);
                at += 1;
                continue;
            }
            [] => break,
        };
        code.extend(rest.iter().take(length).map(|c| blank(*c)));
        at += length;
    }
    code
}

fn after_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    let text: String = rest.iter().collect();
    let open = 2 + hashes;
    let close = format!("\"{}", "#".repeat(hashes));
    let after: String = text.chars().skip(open).collect();
    after.find(&close).map_or(rest.len(), |end| open + after[..end].chars().count() + close.len())
}

/// The code up to the first module of unit tests, which by custom stands last.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let lines: Vec<&str> = code.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let next = lines.get(at + 1).map_or("", |line| line.trim());
        if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            break;
        }
        writeln!(kept, "{line}").unwrap();
    }
    kept
}

/// Every path in the code that begins with `first`, with its line; `use` trees unfolded.
fn paths(code: &str, first: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(first) {
        let (before, after) = (&code[..at], &code[at + first.len()..]);
        let joined = before.ends_with("::") && !before.ends_with(" ::") || before.ends_with('.');
        let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_') || joined;
        let names_all = before.ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
        if inside || !(after.starts_with("::") || names_all) {
            continue;
        }
        let mut unfolded = Vec::new();
        match after.strip_prefix("::") {
            Some(rest) => drop(unfold(rest, first, &mut unfolded)),
            None => unfolded.push((0, first.to_owned())),
        }
        let line = before.matches('\n').count() + 1;
        found.extend(unfolded.into_iter().map(|(below, path)| (line + below, path)));
    }
    found
}

/// Unfolds the tree at the front of `text`: how much of it that was.
fn unfold(text: &str, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
    let path = format!("{prefix}::{word}");
    if !word.is_empty() {
        return match text[word.len()..].strip_prefix("::") {
            Some(rest) => word.len() + 2 + unfold(rest, &path, found),
            None => {
                found.push((0, path));
                word.len()
            }
        };
    }
    if !text.starts_with('{') {
        found.push((0, prefix.to_owned()));
        return 0;
    }
    let mut at = 1;
    while at < text.len() && !text[at..].starts_with('}') {
        if text[at..].starts_with(|c: char| c.is_whitespace() || c == ',') {
            at += 1;
            continue;
        }
        let below = text[..at].matches('\n').count();
        let mut inner = Vec::new();
        at += unfold(&text[at..], prefix, &mut inner).max(1);
        // ` as name`
        at += text[at..].find([',', '}', '{']).unwrap_or(0);
        found.extend(inner.into_iter().map(|(line, path)| (line + below, path)));
    }
    at + 1
}

fn module_of(path: &str) -> &str {
    path.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap()
}

/// How many `super::` lead from a file to the crate's root.
fn depth(path: &str) -> usize {
    let parts = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    if matches!(path, "src/lib.rs" | "src/main.rs") { 0 } else { parts }
}

/// The modules of the crate that a source names: line, path.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = paths(&source.code, "crate");
    let up = vec!["super"; depth(&source.path)].join("::");
    if !up.is_empty() {
        let beyond = |path: &str| path.starts_with(&format!("{up}::")) && !path.starts_with(&format!("{up}::super"));
        found.extend(paths(&source.code, "super").into_iter().filter(|(_, path)| beyond(path)));
    }
    let relative =
        |path: &str| path.trim_start_matches("crate").trim_start_matches(&up).trim_start_matches("::").to_owned();
    found
        .into_iter()
        .map(|(line, path)| {
            let path = relative(&path);
            let renamed = match path.split("::").next().unwrap() {
                "Error" | "Result" => "error".to_owned(),
                "Client" => "client".to_owned(),
                _ => path,
            };
            (line, renamed)
        })
        .collect()
}

fn begins(path: &str, with: &str) -> bool {
    path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn tell(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn imports_point_down() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.path) && source.path != "src/lib.rs") {
        let module = module_of(&source.path);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{}:1: module `{module}` has no place in the table of layers", source.path));
            continue;
        };
        for (line, path) in imports(source) {
            if !begins(&path, module) && !allowed.iter().any(|allowed| begins(&path, allowed)) {
                let rule = format!("`{module}` may not import `{path}`, only: {}", allowed.join(", "));
                broken.push(format!("{}:{line}: {rule}", source.path));
            }
        }
    }
    tell(&broken);
}

#[test]
fn crates_stay_at_home() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.path)) {
        let named = |path: &str| -> Vec<usize> {
            let first = path.split("::").next().unwrap();
            let found = paths(&source.code, first).into_iter();
            found.filter(|(_, found)| begins(found, path)).map(|(line, _)| line).collect()
        };
        let is_in = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
        for (path, homes) in HOMES.iter().filter(|(_, homes)| !is_in(homes)) {
            for line in named(path) {
                broken.push(format!("{}:{line}: `{path}` is at home in {}", source.path, homes.join(", ")));
            }
        }
        for (path, _) in BANNED.iter().filter(|(_, places)| is_in(places)) {
            for line in named(path) {
                broken.push(format!(
                    "{}:{line}: `{path}` has no business in `{}`",
                    source.path,
                    module_of(&source.path)
                ));
            }
        }
    }
    tell(&broken);
}

#[test]
fn nothing_unfinished_and_nothing_endless() {
    let mut broken = Vec::new();
    for Source { path, text, .. } in &sources() {
        for (line, content) in (1..).zip(text.lines()) {
            for word in UNFINISHED.iter().filter(|word| content.to_lowercase().contains(**word)) {
                broken.push(format!("{path}:{line}: `{word}`: finish it, or say what it does"));
            }
        }
        let lines = text.lines().count();
        if lines > LINES {
            broken.push(format!("{path}:{LINES}: {lines} lines, more than {LINES}: split the file by its subjects"));
        }
        if !text.starts_with("//!") {
            broken.push(format!("{path}:1: begins without its story (`//! ...`: what, why so, its invariants)"));
        }
    }
    tell(&broken);
}

#[test]
fn every_dependency_is_explained() {
    let Ok(architecture) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (mut broken, mut section) = (Vec::new(), String::new());
    for (number, line) in (1..).zip(manifest.lines()) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
        } else if section.ends_with("dependencies")
            && let Some((name, _)) = line.split_once('=')
            && !line.starts_with([' ', '#', ']', '"'])
        {
            let name = name.trim().split('.').next().unwrap();
            let is_word = |at: usize| {
                let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
                let (before, after) =
                    (architecture[..at].chars().last(), architecture[at + name.len()..].chars().next());
                !joins(before) && !joins(after)
            };
            if !architecture.match_indices(name).any(|(at, _)| is_word(at)) {
                broken.push(format!("Cargo.toml:{number}: ARCHITECTURE.md does not say what `{name}` is for"));
            }
        }
    }
    tell(&broken);
}

#[test]
fn this_test_reads_code_as_it_is_meant() {
    let code =
        code_of("a \"sled::x\" b // crate::rpc\nr#\"crate::a\"# '\"' crate::model /* sled:: /* */ */ 'a: &'a str\n");
    assert_eq!(paths(&code, "sled"), []);
    assert_eq!(paths(&code, "crate"), [(2, "crate::model".to_owned())]);
    let code = "use crate::{\n    error::{Error, Fault},\n    model::{self, key as k, Key},\n    state,\n};\nstd::fs::read();\nx::std::y;";
    let named: Vec<_> = paths(code, "crate").into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    let expected = [
        "2 crate::error::Error",
        "2 crate::error::Fault",
        "3 crate::model::self",
        "3 crate::model::key",
        "3 crate::model::Key",
        "4 crate::state",
    ];
    assert_eq!(named, expected);
    assert_eq!(paths(code, "std"), [(6, "std::fs::read".to_owned())]);
    assert_eq!(paths("use sled;", "sled"), [(1, "sled".to_owned())]);
    let source = |path: &str, text: &str| Source { path: path.into(), text: String::new(), code: text.into() };
    assert_eq!(imports(&source("src/rpc/mesh.rs", "super::super::raft::Log; super::x")), [(1, "raft::Log".to_owned())]);
    assert_eq!(imports(&source("src/rpc/mod.rs", "use super::raft;")), [(1, "raft".to_owned())]);
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb"), "a\n");
}
