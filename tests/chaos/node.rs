//! One node: a place for a process, with what may be done to it. Where root is needed, the place has a namespace and a
//! volume of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use meshstore::{Client, client::Status};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    harness::{http_get, listed},
    tools::{faketime, must},
    volume::Volume,
};

/// A node that runs, or does not.
pub struct Node {
    pub id: u64,
    /// Which namespace, volume and addresses it has; its first node has that number for its id.
    pub place: u64,
    pub client: String,
    pub peer: String,
    pub http: String,
    /// Where it joins, for one that does not stand in `cluster.toml`.
    pub join: Vec<String>,
    pub toml: PathBuf,
    pub data: PathBuf,
    pub binary: PathBuf,
    /// The command that enters its namespace; empty if it has none.
    pub enter: Vec<String>,
    pub volume: Option<Volume>,
    /// The file that says what time it is for this node.
    pub clock: Option<PathBuf>,
    /// Whether what is done to it now may end the process, which must say why.
    pub may_end: bool,
    pub log: PathBuf,
    /// Where in the log the current run begins.
    pub began: usize,
    pub process: Option<Child>,
    pub paused: bool,
    tracer: Option<Child>,
    group: Option<PathBuf>,
}

impl Node {
    pub fn new(id: u64, addresses: [String; 3], toml: PathBuf, data: PathBuf, log: PathBuf) -> Self {
        let [client, peer, http] = addresses;
        Self {
            id,
            place: id,
            client,
            peer,
            http,
            join: Vec::new(),
            toml,
            data,
            binary: binary(),
            enter: Vec::new(),
            volume: None,
            clock: None,
            may_end: false,
            log,
            began: 0,
            process: None,
            paused: false,
            tracer: None,
            group: None,
        }
    }

    /// How it stands in a configuration.
    pub fn listed(&self) -> String {
        listed(self.id, [&self.client, &self.peer, &self.http])
    }

    /// Starts the process. Waits for nothing.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        self.began = self.whole_log().len();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let words = [&self.enter[..], &[self.binary.to_str().unwrap().to_owned()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESHSTORE_")) {
            command.env_remove(name);
        }
        if let (Some(file), Some(library)) = (&self.clock, faketime()) {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.args(["serve", "--insecure", "--log-level", "info,openraft=warn", "--node", &self.id.to_string()]);
        command.arg("--config").arg(&self.toml).arg("--data").arg(&self.data);
        if !self.join.is_empty() {
            command.args(["--join", &self.join.join(",")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        self.may_end = false;
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs and is not paused.
    pub fn serves(&self) -> bool {
        self.runs() && !self.paused
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(process), signal);
        }
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().unwrap();
        }
        self.paused = false;
        self.detach();
    }

    /// SIGTERM; whether it stopped in order.
    pub async fn terminate(&mut self) -> Result<(), String> {
        self.resume();
        self.signal(Signal::TERM);
        let Some(status) = self.exit(Duration::from_secs(60)).await else {
            self.kill();
            return Err(format!("node {} did not stop within 60 s of SIGTERM", self.id));
        };
        if status { Ok(()) } else { Err(format!("node {} stopped with an error: {}", self.id, self.last_words())) }
    }

    /// Waits until the process has ended: whether in order. `None`: it goes on.
    pub async fn exit(&mut self, limit: Duration) -> Option<bool> {
        let ended = super::cluster::within(limit, async || self.process.as_mut()?.try_wait().unwrap()).await?;
        self.process = None;
        self.paused = false;
        self.detach();
        Some(ended.success())
    }

    /// Whether it has ended by itself, which takes it out of the running ones.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some());
        if ended {
            self.process = None;
            self.paused = false;
            self.detach();
        }
        ended
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        if self.paused {
            self.signal(Signal::CONT);
            self.paused = false;
        }
    }

    /// Changes the answers of the kernel to a process: `calls` as strace names them, `what` as its `inject` wants it.
    pub fn inject(&mut self, calls: &str, what: &str) {
        let Some(pid) = self.pid() else { return };
        self.detach();
        let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"];
        let mut command = Command::new("strace");
        command.args(arguments).arg(format!("inject={calls}:{what}")).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.tracer = Some(command.spawn().unwrap());
    }

    /// Ends what [`inject`](Self::inject) began.
    pub fn detach(&mut self) {
        if let Some(mut tracer) = self.tracer.take() {
            // With SIGTERM it lets the process go in order.
            let _ = kill_process(Pid::from_child(&tracer), Signal::TERM);
            tracer.wait().unwrap();
        }
    }

    /// Gives the process so many of a hundred parts of a processor; `None`: as much as there is.
    pub fn limit_processor(&mut self, percent: Option<u32>) -> Result<(), String> {
        let group = Path::new("/sys/fs/cgroup/cpu").join(format!("meshstore-{}-{}", std::process::id(), self.place));
        let write = |path: PathBuf, text: String| fs::write(&path, text).map_err(|error| error.to_string());
        match percent {
            Some(percent) => {
                let pid = self.pid().ok_or("it does not run")?;
                fs::create_dir_all(&group).map_err(|error| error.to_string())?;
                self.group = Some(group.clone());
                write(group.join("cpu.cfs_quota_us"), (percent * 1_000).to_string())?;
                write(group.join("cgroup.procs"), pid.to_string())
            }
            None => {
                self.group = None;
                if group.exists() {
                    write(group.join("cpu.cfs_quota_us"), "-1".into())?;
                    if let Some(pid) = self.pid() {
                        write(PathBuf::from("/sys/fs/cgroup/cpu/cgroup.procs"), pid.to_string())?;
                    }
                    must("rmdir", &[group.to_str().unwrap()]);
                }
                Ok(())
            }
        }
    }

    /// Whether it serves and knows a leader.
    pub async fn is_ready(&self) -> bool {
        http_get(&self.http, "/readyz").await.is_some_and(|(code, _)| code == 200)
    }

    pub fn whole_log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last line that it has logged since it was started, if that says why it ended.
    pub fn last_words(&self) -> String {
        let log = self.whole_log();
        let lines = log.get(self.began..).unwrap_or_default().lines();
        let said: Vec<&str> = lines.filter(|line| line.starts_with("error: ") || line.contains("panicked")).collect();
        said.last().map_or_else(|| "it said nothing".into(), |line| (*line).to_owned())
    }

    /// A client that asks this node only.
    pub fn pinned(&self, deadline: Duration) -> Client {
        let client = Client::builder().endpoints([&self.client]).deadline(deadline);
        client.connect_lazy().unwrap().pin(&self.client).unwrap()
    }

    /// What the node says of itself; `None` if it does not answer.
    pub async fn status(&self, with_hash: bool) -> Option<Status> {
        self.pinned(Duration::from_secs(2)).cluster().status(with_hash).await.ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if self.group.is_some()
            && let Err(error) = self.limit_processor(None)
        {
            eprintln!("{error}");
        }
    }
}

/// The binary of `MESHSTORE_BINARY`, else the one that cargo built for the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("MESHSTORE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_meshstore").into(), Into::into)
}
