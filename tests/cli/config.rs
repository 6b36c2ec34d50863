use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use meshstore::config::{Config, Engine, Flags};

const FILE: &str = include_str!("../../cluster.toml");

fn flags() -> Flags {
    Flags { node: Some(1), data_dir: Some("data".into()), ..Flags::default() }
}

fn parse(text: &str, flags: &Flags) -> Result<Config, String> {
    Config::parse(text, Path::new("some/cluster.toml"), flags).map_err(|error| error.to_string())
}

/// Replaces one line of cluster.toml, and asks for the whole message about it.
#[track_caller]
fn refused(line: usize, replacement: &str, expected: &str) {
    let mut lines: Vec<&str> = FILE.lines().collect();
    lines[line - 1] = replacement;
    assert_eq!(parse(&lines.join("\n"), &flags()).unwrap_err(), format!("some/cluster.toml:{expected}"));
}

#[test]
fn the_shipped_file_is_valid_for_each_node_and_shows_the_defaults() {
    for id in 1..=3 {
        let config = parse(FILE, &Flags { node: Some(id), ..flags() }).unwrap();
        assert_eq!(config.node.id, id);
        assert_eq!(config.node.client.to_string(), format!("127.0.0.1:740{id}"));
        assert_eq!(config.node.peer.to_string(), format!("127.0.0.1:750{id}"));
        assert_eq!(config.node.http.to_string(), format!("127.0.0.1:760{id}"));
        assert_eq!(config.data_dir, PathBuf::from("data"));
        assert_eq!(config.cluster.nodes.len(), 3);
        assert_eq!(config.cluster.name, "local");
    }
    // What the file says is what holds without it.
    let (mut short, mut keep) = (String::new(), true);
    for line in FILE.lines() {
        keep = if line.starts_with('[') {
            !["storage", "raft", "limits"].iter().any(|name| line.contains(name))
        } else {
            keep
        };
        if keep {
            short.extend([line, "\n"]);
        }
    }
    assert!(!short.contains("heartbeat"));
    assert_eq!(parse(&short, &flags()).unwrap(), parse(FILE, &flags()).unwrap());
    let raft = parse(FILE, &flags()).unwrap().cluster.raft;
    assert_eq!(raft.heartbeat, Duration::from_millis(100));
    assert_eq!(raft.keep_entries, 50_000);
    let limits = parse(FILE, &flags()).unwrap().cluster.limits;
    assert_eq!((limits.calls_per_principal, limits.watch_bytes), (10_000, 64 << 20));
}

#[test]
fn broken_toml_is_named_by_line() {
    refused(7, "engine = ", "7: string values must be quoted, expected literal string");
    refused(13, "[raft", "13: unclosed table, expected `]`");
    refused(14, "heartbeat_ms = \"fast\"", "14: invalid type: string \"fast\", expected u64");
    refused(14, "heartbeat_ms = -1", "14: invalid value: integer `-1`, expected u64");
    refused(8, "engine = \"sled\"", "8: duplicate key");
}

#[test]
fn unknown_and_missing_keys_are_named_by_line() {
    refused(
        8,
        "cache_mb = 64",
        "8: unknown field `cache_mb`, expected one of `engine`, `cache_mib`, `flush_mib`, `flush_after_s`, `reserve_mib`",
    );
    refused(
        13,
        "[rafts]",
        "13: unknown field `rafts`, expected one of `cluster`, `storage`, `raft`, `limits`, `tls`, `auth`, `node`",
    );
    refused(22, "", "21: missing field `id`");
    refused(24, "", "21: missing field `peer`");
    refused(4, "", "3: missing field `name`");
}

#[test]
fn ids_and_addresses_must_be_sound() {
    refused(22, "id = 0", "22: a node id must be at least 1");
    refused(28, "id = 1", "28: node id 1 stands here and in line 22");
    refused(29, "client = \"127.0.0.1:7601\"", "29: address 127.0.0.1:7601 stands here and in line 25");
    refused(25, "http = \"127.0.0.1:7501\"", "25: address 127.0.0.1:7501 stands here and in line 24");
    for (address, why) in [
        ("127.0.0.1", "it has no port"),
        ("127.0.0.1:", "its port is not a number from 1 to 65535"),
        ("127.0.0.1:70000", "its port is not a number from 1 to 65535"),
        ("127.0.0.1:0", "port 0 cannot be reached by others"),
        ("127.0.0.256:7401", "its host is neither a name nor an IP address"),
        (":7401", "its host is neither a name nor an IP address"),
        ("http://127.0.0.1:7401", "its host is neither a name nor an IP address"),
        ("::1:7401", "an IPv6 address needs brackets"),
        ("[a]:7401", "brackets are for IPv6 addresses"),
        ("0.0.0.0:7401", "others cannot connect to an unspecified address"),
    ] {
        refused(
            23,
            &format!("client = \"{address}\""),
            &format!("23: \"{address}\" is no address: {why}; write it like 127.0.0.1:7401"),
        );
    }
}

#[test]
fn values_must_be_in_range() {
    refused(7, "engine = \"rocks\"", "7: unknown engine \"rocks\"; there are \"sled\" and \"memory\"");
    refused(8, "cache_mib = 0", "8: cache_mib must be from 1 to 1048576 (given: 0)");
    refused(9, "flush_mib = 99999", "9: flush_mib must be from 1 to 16384 (given: 99999)");
    refused(10, "flush_after_s = 0", "10: flush_after_s must be from 1 to 86400 (given: 0)");
    refused(11, "reserve_mib = 15", "11: reserve_mib must be from 16 to 1048576 (given: 15)");
    refused(14, "heartbeat_ms = 1", "14: heartbeat_ms must be from 10 to 10000 (given: 1)");
    refused(
        15,
        "election_min_ms = 200",
        "15: election_min_ms (200) must be more than twice heartbeat_ms (100), else one lost heartbeat deposes a leader",
    );
    refused(
        16,
        "election_max_ms = 300",
        "16: election_max_ms (300) must be more than election_min_ms (300): nodes draw their patience from between the two",
    );
    refused(17, "keep_entries = 10000001", "17: keep_entries must be from 0 to 10000000 (given: 10000001)");
    refused(18, "segment_mib = 0", "18: segment_mib must be from 1 to 1024 (given: 0)");
    refused(19, "check_entries = 0", "19: check_entries must be from 1 to 1000000 (given: 0)");
    refused(40, "calls_per_principal = 0", "40: calls_per_principal must be from 1 to 1000000 (given: 0)");
    refused(41, "watch_mib = 0", "41: watch_mib must be from 1 to 16384 (given: 0)");
    refused(4, "name = \"\"", "4: the cluster's name must have 1 to 64 printable characters");
}

#[test]
fn a_rule_that_a_default_breaks_blames_the_line_that_is_there() {
    let text = FILE.lines().filter(|line| !line.starts_with("election")).collect::<Vec<_>>().join("\n");
    let error = parse(&text.replace("heartbeat_ms = 100", "heartbeat_ms = 300"), &flags()).unwrap_err();
    assert!(error.starts_with("some/cluster.toml:14: election_min_ms (300) must be more than twice"), "{error}");
}

#[test]
fn a_cluster_has_nodes_and_this_is_one_of_them() {
    let empty = "[cluster]\nname = \"local\"\n";
    assert_eq!(
        parse(empty, &flags()).unwrap_err(),
        "some/cluster.toml: there is no [[node]]; a cluster has at least one"
    );
    assert_eq!(
        parse(FILE, &Flags { node: Some(7), ..flags() }).unwrap_err(),
        "--node 7: some/cluster.toml has no such node, it has 1, 2, 3; for another give --peer, --client and --http"
    );
    assert_eq!(
        parse(FILE, &Flags { node: None, ..flags() }).unwrap_err(),
        "which node to be is not said: pass --node with one of 1, 2, 3 (some/cluster.toml)"
    );
    let single = FILE.split("[[node]]").take(2).collect::<Vec<_>>().join("[[node]]");
    assert_eq!(parse(&single, &Flags { node: None, ..flags() }).unwrap().node.id, 1);
}

#[test]
fn a_node_that_is_added_brings_its_addresses_along() {
    let at = |port: u16| Some(format!("127.0.0.1:{port}"));
    let added = Flags { node: Some(4), peer: at(7504), client: at(7404), http: at(7604), ..flags() };
    let joins = Flags { join: vec!["127.0.0.1:7501".into(), "node2:7502".into()], learner: true, ..added.clone() };
    let config = parse(FILE, &joins).unwrap();
    assert_eq!((config.node.id, config.node.peer.port(), config.cluster.nodes.len()), (4, 7504, 3));
    assert_eq!((config.join.len(), config.learner), (2, true));
    assert!(parse(FILE, &added).unwrap().join.is_empty(), "later it is told nothing of the others");
    for (wrong, said) in [
        (
            Flags { http: None, ..added.clone() },
            "node 4 does not stand in some/cluster.toml, so it needs --peer, --client and --http; --http is missing",
        ),
        (
            Flags { node: Some(1), ..added.clone() },
            "--peer: node 1 stands in some/cluster.toml, and its addresses with it; change them there",
        ),
        (
            Flags { node: None, ..added.clone() },
            "which node to be is not said: pass --node with one of 1, 2, 3 (some/cluster.toml)",
        ),
        (Flags { node: Some(0), ..added.clone() }, "--node 0: a node id must be at least 1"),
        (
            Flags { peer: at(7502), ..added.clone() },
            "--peer 127.0.0.1:7502 is an address of node 2 in some/cluster.toml: choose another, or take node 2 out of the \
             file if it is gone",
        ),
        (Flags { peer: at(7404), ..added.clone() }, "--peer, --client and --http must be three addresses"),
        (
            Flags { peer: Some("7504".into()), ..added.clone() },
            "--peer: \"7504\" is no address: it has no port; write it like 127.0.0.1:7401",
        ),
        (Flags { learner: true, ..added.clone() }, "--learner is for a node that joins: it goes with --join"),
        (
            Flags { join: vec!["node1".into()], ..added.clone() },
            "--join: \"node1\" is no address: it has no port; write it like 127.0.0.1:7401",
        ),
    ] {
        assert_eq!(parse(FILE, &wrong).unwrap_err(), said);
    }
    let open = Flags { peer: Some("10.0.0.4:7501".into()), ..added };
    let error = parse(FILE, &open).unwrap_err();
    assert!(error.contains("10.0.0.4:7501 can be reached by other machines"), "{error}");
}

#[test]
fn the_data_directory_comes_from_the_flag_or_the_file() {
    let error = parse(FILE, &Flags { data_dir: None, ..flags() }).unwrap_err();
    assert!(error.starts_with("node 1 has no data directory: pass --data DIR"), "{error}");
    let with = FILE.replace("id = 1\n", "id = 1\ndata_dir = \"one\"\n");
    let from_file = parse(&with, &Flags { data_dir: None, ..flags() }).unwrap();
    assert_eq!(from_file.data_dir, PathBuf::from("some/one"), "relative to the file");
    assert_eq!(parse(&with, &flags()).unwrap().data_dir, PathBuf::from("data"), "the flag wins");
    let twice = with.replace("id = 2\n", "id = 2\ndata_dir = \"one\"\n");
    assert_eq!(
        parse(&twice, &flags()).unwrap_err(),
        "some/cluster.toml:30: data_dir one on 127.0.0.1 stands here and in line 23"
    );
    let empty = parse(FILE, &Flags { data_dir: Some("".into()), ..flags() }).unwrap_err();
    assert_eq!(empty, "the data directory must not be an empty path");
}

#[test]
fn a_node_without_tls_stays_on_loopback_unless_told_otherwise() {
    let open = FILE.replace("127.0.0.1:7501", "10.0.0.1:7501");
    let error = parse(&open, &flags()).unwrap_err();
    assert!(error.starts_with("some/cluster.toml:24: 10.0.0.1:7501 can be reached by other machines"), "{error}");
    assert!(parse(&open, &Flags { insecure: true, ..flags() }).is_ok());
    assert!(parse(&open, &Flags { node: Some(2), ..flags() }).is_ok(), "another node's address is not this one's risk");
    for loopback in ["localhost:7501", "[::1]:7501", "127.9.9.9:7501"] {
        assert!(parse(&FILE.replace("127.0.0.1:7501", loopback), &flags()).is_ok(), "{loopback}");
    }
    assert!(parse(&FILE.replace("127.0.0.1:7501", "node1.example:7501"), &flags()).is_err());
}

const TLS: &str = "[tls]\nca = \"tls/ca.crt\"\ncert = \"tls/node-{node}.crt\"\nkey = \"/etc/mesh/own.key\"\n";

#[test]
fn tls_names_each_node_s_files() {
    let text = format!("{FILE}{TLS}[auth]\ntokens = \"tls/tokens.toml\"\n");
    let tls = parse(&text, &Flags { node: Some(2), ..flags() }).unwrap().tls.unwrap();
    assert_eq!(tls.ca, PathBuf::from("some/tls/ca.crt"), "relative to the file");
    assert_eq!(tls.cert, PathBuf::from("some/tls/node-2.crt"));
    assert_eq!(tls.key, PathBuf::from("/etc/mesh/own.key"));
    assert_eq!(tls.tokens, Some(PathBuf::from("some/tls/tokens.toml")));
    assert!(!tls.http);
    assert_eq!(parse(FILE, &flags()).unwrap().tls, None);
    assert_eq!(parse(&format!("{FILE}{TLS}"), &flags()).unwrap().tls.unwrap().tokens, None);
}

#[test]
fn tls_that_cannot_be_meant_is_named_by_line() {
    let first = FILE.lines().count() + 1;
    let refused = |text: String, line: usize, expected: &str| {
        let error = parse(&format!("{FILE}{text}"), &flags()).unwrap_err();
        assert_eq!(error, format!("some/cluster.toml:{}: {expected}", first + line));
    };
    let own = "cert is each node's own: write {node} into it, like tls/node-{node}.crt";
    refused(TLS.replace("-{node}", ""), 2, own);
    refused(TLS.replace("tls/ca.crt", ""), 1, "ca must not be empty");
    refused(TLS.replace("ca = ", "cas = "), 1, "unknown field `cas`, expected one of `ca`, `cert`, `key`, `http`");
    refused(TLS.replace("ca = ", "http = 1\nca = "), 1, "invalid type: integer `1`, expected a boolean");
    let plain = "tokens need [tls]: sent in plain text, whoever sees the connection could use them";
    refused("[auth]\ntokens = \"t\"\n".into(), 1, plain);
    refused(format!("{TLS}[auth]\ntokens = \"\"\n"), 5, "tokens must not be empty");
}

#[test]
fn a_node_with_tls_may_be_reached_but_for_what_stays_in_plain_text() {
    let open = |http: &str| format!("{}{TLS}{http}", FILE.replace("127.0.0.1", "10.0.0.1"));
    let error = parse(&open(""), &flags()).unwrap_err();
    assert!(
        error.starts_with("some/cluster.toml:25: 10.0.0.1:7601 can be reached by other machines, but health"),
        "{error}"
    );
    assert!(parse(&open("http = true\n"), &flags()).unwrap().tls.unwrap().http);
    assert!(parse(&open(""), &Flags { insecure: true, ..flags() }).is_ok());
    assert!(parse(&open("").replace("10.0.0.1:760", "127.0.0.1:760"), &flags()).is_ok());
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags {
        engine: Some(Engine::Memory),
        log_filter: Some("warn,meshstore=debug".into()),
        log_json: true,
        ..flags()
    };
    let config = parse(FILE, &flags).unwrap();
    assert_eq!(config.cluster.storage.engine, Engine::Memory);
    assert_eq!(config.log.filter, "warn,meshstore=debug");
    assert!(config.log.json);
    let error = parse(FILE, &Flags { log_filter: Some("meshstore=loud".into()), ..flags }).unwrap_err();
    assert!(error.starts_with("--log-level meshstore=loud: "), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("no/such.toml"), &flags()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the configuration no/such.toml: "), "{error}");
    assert_eq!(error.line(), None);
}
