//! `meshstore security`: the files that it makes, and what it never does to those that are there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use super::command::run;

/// Runs a command of `security` on a directory.
fn security(directory: &Path, words: &[&str]) -> (i32, String, String) {
    let words: Vec<_> = words.iter().map(|word| word.replace("DIR", directory.to_str().unwrap())).collect();
    run(&["security"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All files with their bytes.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    names(directory).into_iter().map(|name| (name.clone(), fs::read(directory.join(name)).unwrap())).collect()
}

fn initialised() -> TempDir {
    let directory = TempDir::new().unwrap();
    let (code, _, stderr) =
        security(directory.path(), &["init", "DIR", "--node", "1=127.0.0.1", "--node", "2=node-2.example,10.0.0.2"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    directory
}

#[test]
fn init_makes_what_a_cluster_needs_and_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let tls = directory.path().join("tls");
    let toml = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.toml");
    let (code, stdout, stderr) = security(&tls, &["init", "DIR", "--config", toml]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("certificates for the nodes 1, 2, 3") && stdout.contains("[tls]\n"), "{stdout}");
    let expected = [
        "admin.crt",
        "admin.key",
        "admin.token",
        "ca.crt",
        "ca.key",
        "node-1.crt",
        "node-1.key",
        "node-2.crt",
        "node-2.key",
        "node-3.crt",
        "node-3.key",
        "tokens.toml",
    ];
    assert_eq!(names(&tls), expected);
    for name in expected {
        let mode = fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name.ends_with(".crt") { 0o644 } else { 0o600 }, "{name}");
    }
    let secret = fs::read_to_string(tls.join("admin.token")).unwrap();
    let (token, tokens) = (secret.trim(), fs::read_to_string(tls.join("tokens.toml")).unwrap());
    assert!(token.starts_with("mst_") && !tokens.contains(token) && !stdout.contains(token));
    assert!(tokens.contains("principal = \"person/admin\""), "{tokens}");
}

#[test]
fn init_never_overwrites() {
    let directory = initialised();
    let before = contents(directory.path());
    for words in [&["init", "DIR", "--node", "1=127.0.0.1"][..], &["init", "DIR", "--node", "9=10.0.0.9", "--json"]] {
        let (code, stdout, stderr) = security(directory.path(), words);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("is not empty; nothing was written"), "{stderr}");
    }
    let (code, _, stderr) = security(directory.path(), &["cert", "DIR", "--node", "1=127.0.0.1"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("node-1.key is there already; nothing was written"), "{stderr}");
    assert_eq!(contents(directory.path()), before);
}

#[test]
fn certificates_are_added_and_renewed() {
    let directory = initialised();
    let at = |name: &str| fs::read(directory.path().join(name));
    let (old, old_key) = (at("node-1.crt").unwrap(), at("node-1.key").unwrap());
    let (code, stdout, _) = security(directory.path(), &["cert", "DIR", "--node", "1=127.0.0.1", "--replace"]);
    assert!(code == 0 && stdout.contains("node-1.crt"), "{stdout}");
    assert!(at("node-1.crt").unwrap() != old && at("node-1.key").unwrap() != old_key);
    let (code, stdout, _) =
        security(directory.path(), &["cert", "DIR", "--service", "billing", "--days", "30", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, answer["files"].as_array().unwrap().len()), (0, 2));
    assert!(at("service-billing.crt").is_ok() && at("service-billing.key").is_ok());
    assert!(names(directory.path()).iter().all(|name| !name.ends_with(".new")));
}

#[test]
fn tokens_are_added_listed_and_revoked() {
    let directory = initialised();
    let (code, token, _) = security(directory.path(), &["token", "add", "DIR", "--service", "billing", "--days", "1"]);
    assert_eq!(code, 0);
    let id = token.trim().split('_').nth(1).unwrap().to_owned();
    let (code, list, _) = security(directory.path(), &["token", "list", "DIR"]);
    assert!(
        code == 0 && list.contains(&id) && list.contains("service/billing") && list.contains("person/admin"),
        "{list}"
    );
    assert!(!list.contains(token.trim().splitn(3, '_').nth(2).unwrap()));
    let (code, stdout, _) = security(directory.path(), &["token", "revoke", "DIR", &id]);
    assert!(code == 0 && stdout.starts_with(&format!("revoked {id} of service/billing")), "{stdout}");
    let (code, _, stderr) = security(directory.path(), &["token", "revoke", "DIR", &id]);
    assert_eq!((code, stderr), (3, format!("error: token not found: {id}\n")));
    let (_, stdout, _) = security(directory.path(), &["token", "list", "DIR", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_written() {
    let directory = initialised();
    let before = contents(directory.path());
    for (words, code, expected) in [
        (&["cert", "DIR"][..], 2, "for whom? Pass --node, --service or --person"),
        (&["cert", "DIR", "--service", "a b"], 2, "must be 1 to 128 letters, digits"),
        (&["cert", "DIR", "--service", "a", "--person", "b"], 2, "cannot be used with"),
        (&["cert", "DIR", "--node", "1"], 2, "write it like 1=node-1.example,10.0.0.1"),
        (&["cert", "DIR", "--node", "0=a"], 2, "write it like 1=node-1.example,10.0.0.1"),
        (&["cert", "DIR", "--person", "ada", "--days", "0"], 2, "0 is not in 1..=3650"),
        (&["cert", "no/such", "--person", "ada"], 1, "cannot read no/such/ca.crt"),
        (&["token", "add", "DIR"], 2, "for whom? Pass --service NAME or --person NAME"),
        (&["token", "add", "no/such", "--person", "ada"], 1, "cannot read no/such/tokens.toml"),
        (&["init", "DIR/x", "--node", "1=a", "--node", "1=b"], 2, "node 1 is given twice"),
        (&["init", "DIR/x", "--config", "no/such.toml"], 2, "cannot read the configuration no/such.toml"),
    ] {
        let (found, stdout, stderr) = security(directory.path(), words);
        assert_eq!((found, stdout.as_str()), (code, ""), "{words:?}: {stderr}");
        assert!(stderr.contains(expected), "{words:?}: {stderr}");
    }
    assert_eq!(contents(directory.path()), before);
}
