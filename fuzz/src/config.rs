//! `cluster.toml`: what is wrong is said with a line that there is, and what is accepted keeps every documented range.

use std::{collections::BTreeSet, path::Path, time::Duration};

use meshstore::config::{Address, Config, Flags};

use super::input::Input;

const SHIPPED: &str = include_str!("../../cluster.toml");

/// Values that stand at the edges of the rules.
const VALUES: &[&str] = &[
    "0",
    "1",
    "9",
    "10",
    "15",
    "16",
    "20",
    "21",
    "1024",
    "1025",
    "16384",
    "16385",
    "60000",
    "60001",
    "86400",
    "86401",
    "120000",
    "1048576",
    "1048577",
    "10000000",
    "18446744073709551615",
    "9223372036854775807",
    "-1",
    "1.5",
    "true",
    "\"\"",
    "\"sled\"",
    "\"memory\"",
    "\"127.0.0.1:7401\"",
    "\"[::1]:7401\"",
    "\"localhost:1\"",
    "\"host:65535\"",
    "\"0.0.0.0:1\"",
    "\"a:0\"",
    "\"data\"",
    "[]",
    "{}",
    "1979-05-27",
    "'''\n'''",
];

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let flags = Flags { node: Some(1), data_dir: Some("/d".into()), insecure: true, ..Flags::default() };
    match choice % 4 {
        0 => check(&String::from_utf8_lossy(rest), &flags),
        1 => check(&mutated(&mut Input::new(rest)), &flags),
        2 => check(&mutated(&mut Input::new(rest)), &Flags::default()),
        _ => address(&String::from_utf8_lossy(rest)),
    }
}

/// The shipped file, changed in a few places.
fn mutated(input: &mut Input<'_>) -> String {
    let mut lines: Vec<String> = SHIPPED.lines().map(str::to_owned).collect();
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let at = input.below(lines.len().max(1)).min(lines.len().saturating_sub(1));
        let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        match input.below(7) {
            0 => lines.insert(at, String::from_utf8_lossy(input.bytes(64)).into_owned()),
            1 if lines.len() > 1 => drop(lines.remove(at)),
            2 => lines[at] = format!("{} = {}", name(&lines[at]), VALUES[input.below(VALUES.len())]),
            3 => lines[at] = format!("{} = {}", name(&lines[at]), input.number()),
            4 => lines[at] = format!("{} = \"{}\"", name(&lines[at]), String::from_utf8_lossy(input.bytes(32))),
            5 => lines.push(lines[at].clone()),
            _ => lines[at].push_str(&String::from_utf8_lossy(input.bytes(8))),
        }
    }
    lines.join(if input.flag() { "\r\n" } else { "\n" })
}

fn check(text: &str, flags: &Flags) {
    match Config::parse(text, Path::new("cluster.toml"), flags) {
        Err(invalid) => {
            assert!(!invalid.to_string().is_empty());
            if let Some(line) = invalid.line() {
                let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&line), "line {line} of {lines}: {invalid}");
                assert!(invalid.to_string().starts_with(&format!("cluster.toml:{line}: ")), "{invalid}");
            }
        }
        Ok(config) => valid(&config, flags),
    }
}

fn valid(config: &Config, flags: &Flags) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap();
    let Config { cluster, node, data_dir, .. } = config;
    assert!((1..=64).contains(&cluster.name.chars().count()) && !cluster.name.chars().any(char::is_control));
    let storage = &cluster.storage;
    assert!((1 << 20..=1 << 40).contains(&storage.cache_bytes), "{storage:?}");
    assert!((1 << 20..=16 << 30).contains(&storage.flush_bytes), "{storage:?}");
    assert!((1..=86_400).contains(&storage.flush_after.as_secs()), "{storage:?}");
    assert!((16 << 20..=1 << 40).contains(&storage.reserve_bytes), "{storage:?}");
    let raft = &cluster.raft;
    assert!((10..=10_000).contains(&ms(raft.heartbeat)), "{raft:?}");
    assert!(ms(raft.election_min) > 2 * ms(raft.heartbeat) && ms(raft.election_min) <= 60_000, "{raft:?}");
    assert!(raft.election_max > raft.election_min && ms(raft.election_max) <= 120_000, "{raft:?}");
    assert!(raft.keep_entries <= 10_000_000 && (1..=1_000_000).contains(&raft.check_entries), "{raft:?}");
    assert!((1 << 20..=1 << 30).contains(&raft.segment_bytes), "{raft:?}");
    assert!((1..=1_000_000).contains(&cluster.limits.calls_per_principal), "{:?}", cluster.limits);
    assert!((1 << 20..=16 << 30).contains(&cluster.limits.watch_bytes), "{:?}", cluster.limits);

    assert!(cluster.nodes.contains(node) && !data_dir.as_os_str().is_empty());
    assert!(cluster.nodes.is_sorted_by(|one, next| 1 <= one.id && one.id < next.id), "{:?}", cluster.nodes);
    let addresses: Vec<&Address> =
        cluster.nodes.iter().flat_map(|node| [&node.client, &node.peer, &node.http]).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
    for one in addresses {
        address(&one.to_string());
    }
    if !flags.insecure {
        assert!([&node.client, &node.peer, &node.http].iter().all(|address| address.is_loopback()), "{node:?}");
    }
}

fn address(text: &str) {
    let Ok(address) = text.parse::<Address>() else { return };
    assert_ne!(address.port(), 0);
    assert!(!address.host().is_empty());
    assert_eq!(address.to_string().parse(), Ok(address), "it reads back otherwise than it is written");
}
