//! The command as `docs/cli/*.md` shows it: every command in there is run against a cluster of its own, and must answer what
//! stands there.
//!
//! In a block `console` a line that begins with `$ ` is given to a shell (`> ` continues it), what follows is what it prints on
//! both outputs, and `(exit code N)` stands behind one that fails. `<!-- nodes: 3 -->` says how many nodes there are, `<!-- stop
//! -->` that they stop here. What differs from run to run is replaced by a word in capitals. After a change of what the
//! command says: `MESHSTORE_NEW_TRANSCRIPTS=1`, and read the difference.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use regex::Regex;

use crate::harness::{Cluster, Settings, binary};

/// What differs from run to run, and what stands for it.
const DIFFERENT: [(&str, &str); 17] = [
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b[0-9a-f]{32}\b", "HEX"),
    (r"\b(mesh|node|region|route)_[0-9A-HJKMNP-TV-Z]{26}\b", "${1}_ULID"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)?", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r#"("[a-z_]+_at_ms"|"[a-z_]*timestamp_ms"):\s*\d+"#, "$1:MS"),
    (r"127\.0\.0\.1:\d+", "HOST:PORT"),
    (r#"("?revision"?:?) (\d+)"#, "$1 N"),
    (r#"("[a-z_]*revision"):\d+"#, "$1:N"),
    (r"\b\d+ MiB", "N MiB"),
    (r"\b\d+ ms left", "MS ms left"),
    (r#"("remaining_ms"):\d+"#, "$1:MS"),
    (r"\btoken \d+", "token N"),
    (r"after \d+ ms", "after N ms"),
    (r"entry \d+\.\d+", "entry TERM.INDEX"),
    (r"up to \d+\.\d+", "up to TERM.INDEX"),
    (r"cursor [0-9A-Za-z_-]{20,}", "cursor CURSOR"),
];

fn transcripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli");
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// A transcript: what is written in it, and what was said when it was run.
struct Run {
    cluster: Cluster,
    home: tempfile::TempDir,
    different: Vec<(Regex, &'static str)>,
}

impl Run {
    async fn start(text: &str) -> Self {
        let nodes = text.split_once("<!-- nodes: ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let cluster = Cluster::start(nodes.unwrap_or(1), Settings { storage: "", raft: "" }).await;
        let different = DIFFERENT.iter().map(|(pattern, word)| (Regex::new(pattern).unwrap(), *word)).collect();
        Self { cluster, home: tempfile::tempdir().unwrap(), different }
    }

    /// What a shell prints for a command, and how it ends.
    fn say(&self, command: &str) -> String {
        let path = format!("{}:{}", binary().parent().unwrap().display(), env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(self.home.path()).stdin(Stdio::null());
        shell.env("PATH", path).env("MESHSTORE_ENDPOINTS", self.cluster.endpoints().join(","));
        for node in &self.cluster.nodes {
            shell.env(format!("DATA_{}", node.id), &node.data).env(format!("PEER_{}", node.id), &node.peer);
        }
        let output = shell.output().unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        for node in &self.cluster.nodes {
            said = said.replace(node.data.to_str().unwrap(), &format!("DATA_{}", node.id));
        }
        said = said.replace(self.home.path().to_str().unwrap(), "HOME");
        for (pattern, word) in &self.different {
            said = pattern.replace_all(&said, *word).into_owned();
        }
        let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
        said = lines.join("\n");
        if !said.is_empty() {
            said.push('\n');
        }
        match output.status.code() {
            Some(0) => said,
            code => format!("{said}(exit code {})\n", code.unwrap_or(-1)),
        }
    }

    /// The transcript as it is now.
    async fn write(&mut self, text: &str) -> String {
        let (mut now, mut lines, mut inside) = (String::new(), text.lines().peekable(), false);
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").filter(|_| inside).map(str::to_owned);
            now.push_str(line);
            now.push('\n');
            match line {
                "```console" => inside = true,
                "```" => inside = false,
                "<!-- stop -->" => self.cluster.terminate_all().await,
                _ => {}
            }
            let Some(mut command) = command else { continue };
            while let Some(more) = lines.next_if(|line| line.starts_with("> ") || *line == ">") {
                command.push('\n');
                command.push_str(more.strip_prefix("> ").unwrap_or_default());
                now.push_str(more);
                now.push('\n');
            }
            now.push_str(&self.say(&command));
            while lines.next_if(|line| !line.starts_with("$ ") && *line != "```").is_some() {}
        }
        now
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_its_transcripts_show() {
    let new = env::var_os("MESHSTORE_NEW_TRANSCRIPTS").is_some();
    for path in transcripts() {
        let text = fs::read_to_string(&path).unwrap();
        let now = Run::start(&text).await.write(&text).await;
        if new {
            fs::write(&path, now).unwrap();
            continue;
        }
        for (number, (now, then)) in now.lines().zip(text.lines()).enumerate() {
            assert_eq!(now, then, "{}:{}: the command says otherwise now (left)", path.display(), number + 1);
        }
        assert_eq!(now, text, "{}", path.display());
    }
}

/// The commands that have no commands of their own, as `--help` lists them.
fn leaves(path: &str) -> Vec<String> {
    let arguments = path.split_whitespace().chain(["--help"]);
    let output = Command::new(binary()).args(arguments).env("COLUMNS", "200").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return vec![path.trim().to_owned()] };
    let listed = listed.split("\n\n").next().unwrap_or_default().lines();
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).flat_map(|name| leaves(&format!("{path} {name}"))).collect()
}

#[test]
fn every_command_is_in_a_transcript() {
    let mut missing: BTreeSet<String> = leaves("").into_iter().collect();
    assert!(missing.len() > 40, "{missing:?}");
    for path in transcripts() {
        let text = fs::read_to_string(&path).unwrap();
        missing.retain(|command| !text.contains(&format!("meshstore {command}")));
    }
    assert!(missing.is_empty(), "no transcript in docs/cli shows: {missing:?}");
}
