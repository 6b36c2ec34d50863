//! The command line itself: what is understood, what is refused, and how. No node runs here.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// Nobody listens on port 1.
const NOBODY: &str = "127.0.0.1:1";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshstore"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESHSTORE_")) {
        command.env_remove(name);
    }
    command.args(arguments).env("MESHSTORE_ENDPOINTS", NOBODY).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn commands() -> Vec<Vec<&'static str>> {
    let mut commands = vec![vec![], vec!["serve"], vec!["status"], vec!["bench"], vec!["bench", "fill"]];
    for (group, verbs) in [
        ("message", ["store", "get", "list", "delete"]),
        ("state", ["put", "get", "list", "delete"]),
        ("node-state", ["save", "get", "list", "delete"]),
        ("route", ["save", "get", "list", "delete"]),
        ("config", ["save", "get", "list", "delete"]),
    ] {
        commands.push(vec![group]);
        commands.extend(verbs.map(|verb| vec![group, verb]));
    }
    commands.extend([vec!["security"], vec!["security", "init"], vec!["security", "cert"]]);
    commands.extend(["add", "list", "revoke"].map(|verb| vec!["security", "token", verb]));
    commands.push(vec!["member"]);
    commands.extend(["list", "add", "remove", "promote", "update", "transfer"].map(|verb| vec!["member", verb]));
    commands
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for mut command in commands() {
        let is_group = command.len() == 1 && !["serve", "status", "bench"].contains(&command[0]);
        command.push("--help");
        let (code, stdout, stderr) = run(&command);
        assert_eq!((code, stderr.as_str()), (0, ""), "{command:?}");
        assert!(stdout.contains("Usage: meshstore"), "{command:?}: {stdout}");
        assert!(is_group || stdout.contains("Example"), "{command:?}: {stdout}");
        assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{command:?}: {stdout}");
    }
    assert!(run(&["--help"]).1.contains("Exit codes:"));
    assert_eq!(run(&["--version"]).1, concat!("meshstore ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_is_refused_with_2_in_either_face() {
    for wrong in [
        &["stat"][..],
        &["state", "put", "key"],
        &["state", "get", "key", "--raw", "--json"],
        &["state", "get", "key", "--read", "fresh"],
        &["state", "put", "key", "value", "--read", "stale"],
        &["state", "list", "--all", "--cursor", "x"],
        &["state", "list", "--limit", "0"],
        &["state", "list", "--limit", "1001"],
        &["state", "get", "key", "--timeout", "soon"],
        &["state", "get", "key", "--timeout", "0s"],
        &["state", "get", "key", "--timeout", "1h"],
        &["state", "get", "key", "--endpoints", "https://127.0.0.1:7401"],
        &["state", "get", "key", "--endpoints", "127.0.0.1"],
        &["state", "get", "key", "--cert", "x", "--key", "y"],
        &["state", "get", "key", "--token-file", "x"],
        &["state", "get", "key", "--ca", "no/such/file"],
        &["state", "get", "key", "--ca", "Cargo.toml"],
        &["state", "put", "key", "@no/such/file"],
        &["message", "store", "--from", "a", "content"],
        &["message", "store", "--from", "a", "--to", "b", "--timestamp", "noon", "content"],
        &["bench", "--op", "drop"],
        &["bench", "--op", "put", "--read", "stale"],
        &["bench", "--clients", "1,0"],
        &["status", "--read", "stale"],
        &["serve", "--config", "no/such.toml"],
        &["serve", "--engine", "rocks"],
    ] {
        let (code, stdout, stderr) = run(wrong);
        assert_eq!((code, stdout.as_str()), (2, ""), "{wrong:?}: {stderr}");
        if wrong.contains(&"--json") {
            continue;
        }
        assert!(stderr.starts_with("error: "), "{wrong:?}: {stderr}");
        let in_json: Vec<_> = wrong.iter().copied().chain(["--json"]).collect();
        let (code, stdout, stderr) = run(&in_json);
        assert_eq!((code, stdout.as_str()), (2, ""), "{wrong:?}: {stderr}");
        let error: serde_json::Value = serde_json::from_str(&stderr).unwrap();
        assert_eq!(error["error"]["exit_code"], 2);
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.starts_with("error")), "{error}");
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_4() {
    for reads in [&["state", "get", "key"][..], &["message", "list"], &["config", "list", "--all"]] {
        let (code, stdout, stderr) = run(&[reads, &["--timeout", "200ms"]].concat());
        assert_eq!((code, stdout.as_str()), (4, ""), "{stderr}");
        assert!(stderr.starts_with("error: deadline of 200 ms passed"), "{stderr}");
        assert!(stderr.contains("\nhint: `meshstore status`"), "{stderr}");
    }
    // Certainly not written either: no connection, no write.
    let (code, _, stderr) = run(&["route", "save", "there", "{}", "--timeout", "200ms", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(code, 4);
    assert_eq!(error["error"]["kind"], "deadline_exceeded");
    assert_eq!(error["error"]["may_have_applied"], false);
}

#[test]
fn status_shows_who_does_not_answer() {
    let (code, stdout, stderr) = run(&["status"]);
    assert_eq!(code, 4);
    assert!(stdout.contains(NOBODY) && stdout.contains("unreachable"), "{stdout}");
    assert!(stderr.starts_with("error: no node answers"), "{stderr}");
    let (code, stdout, _) = run(&["status", "--json", "--endpoints", "127.0.0.1:1,127.0.0.1:2"]);
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 4);
    let endpoints: Vec<_> = status["nodes"].as_array().unwrap().iter().map(|node| &node["endpoint"]).collect();
    assert_eq!(endpoints, ["127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn a_closed_output_ends_the_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["status", "--json"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn serve_names_file_and_line_of_what_is_wrong() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(include_bytes!("../../cluster.toml")).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (code, _, stderr) = run(&["serve", "--config", &path, "--node", "9", "--data", "x"]);
    assert_eq!(
        (code, stderr),
        (
            2,
            format!(
                "error: --node 9: {path} has no such node, it has 1, 2, 3; for another give --peer, --client and --http\n"
            )
        )
    );
    file.write_all(b"[[node]]\nid = 1\n").unwrap();
    let (code, _, stderr) = run(&["serve", "--config", &path, "--node", "1", "--data", "x"]);
    assert_eq!((code, stderr), (2, format!("error: {path}:42: missing field `client`\n")));
    let mut from_environment = command(&["serve"]);
    from_environment.env("MESHSTORE_CONFIG", &path).env("MESHSTORE_NODE", "one");
    assert_eq!(from_environment.output().unwrap().status.code(), Some(2));
}
