//! The processes of a system, and what they have used.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

/// How long a system may take to answer after its start, and to stop.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What was used since the start, or between two looks.
pub struct Usage {
    /// Processor time of all nodes.
    pub server_cpu: Duration,
    /// Processor time of this process, which is the load.
    pub client_cpu: Duration,
    /// Syncs of logs, of all nodes.
    pub syncs: u64,
    /// The most memory that a node has held so far.
    pub peak_bytes: u64,
    /// What the node that holds most holds now.
    pub resident_bytes: u64,
    /// What stands on the disk now, of all nodes.
    pub disk_bytes: u64,
}

impl Usage {
    pub fn since(self, before: &Self) -> Self {
        Self {
            server_cpu: self.server_cpu.saturating_sub(before.server_cpu),
            client_cpu: self.client_cpu.saturating_sub(before.client_cpu),
            syncs: self.syncs.saturating_sub(before.syncs),
            ..self
        }
    }
}

/// Running processes, each the first of a group of its own. They are killed when this is dropped.
pub struct Nodes {
    home: PathBuf,
    children: Vec<Child>,
    /// How they were started.
    commands: Vec<(String, Command)>,
}

impl Nodes {
    pub fn new(home: &Path) -> Self {
        Self { home: home.into(), children: Vec::new(), commands: Vec::new() }
    }

    /// Starts one, whose output goes to a file.
    pub fn spawn(&mut self, name: &str, mut command: Command) -> Result<()> {
        self.children.push(spawn(&self.home, name, &mut command)?);
        self.commands.push((name.to_owned(), command));
        Ok(())
    }

    /// Starts all of them again that were stopped.
    pub fn start_again(&mut self) -> Result<()> {
        self.children.clear();
        for (name, command) in &mut self.commands {
            self.children.push(spawn(&self.home, name, command)?);
        }
        Ok(())
    }

    /// Waits until `ready` says so. Errors: a process has ended, or it took too long; with the end of the logs.
    pub async fn ready<F: Future<Output = bool>>(&mut self, mut ready: impl FnMut() -> F) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if ready().await {
                return Ok(());
            }
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("a process has ended with {status}\n{}", self.logs());
                }
            }
            if Instant::now() > until {
                bail!("no answer within {PATIENCE:?}\n{}", self.logs());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends them: in order, or as a crash would.
    pub async fn end(&mut self, in_order: bool) {
        self.signal(if in_order { Signal::TERM } else { Signal::KILL });
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until
            && self.children.iter_mut().any(|child| child.try_wait().is_ok_and(|ended| ended.is_none()))
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn logs(&self) -> String {
        let logs = fs::read_dir(&self.home).into_iter().flatten().flatten();
        let logs = logs.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
        let ends = logs.filter_map(|file| {
            let text = fs::read_to_string(file.path()).ok()?;
            let lines: Vec<&str> = text.lines().collect();
            Some(format!("{}:\n{}", file.path().display(), lines[lines.len().saturating_sub(5)..].join("\n")))
        });
        ends.collect::<Vec<_>>().join("\n")
    }

    pub fn usage(&self, syncs: u64) -> Result<Usage> {
        let mut used = Usage {
            server_cpu: Duration::ZERO,
            client_cpu: cpu("self")?.unwrap_or_default(),
            syncs,
            peak_bytes: 0,
            resident_bytes: 0,
            disk_bytes: on_disk(&self.home)?,
        };
        for child in &self.children {
            for pid in family(child.id())? {
                used.server_cpu += cpu(&pid)?.unwrap_or_default();
            }
            used.peak_bytes = used.peak_bytes.max(memory(child.id(), "VmHWM:"));
            used.resident_bytes = used.resident_bytes.max(memory(child.id(), "VmRSS:"));
        }
        Ok(used)
    }

    fn signal(&self, signal: Signal) {
        for child in &self.children {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // One that has ended is what is wanted.
                let _ = kill_process_group(pid, signal);
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn spawn(home: &Path, name: &str, command: &mut Command) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(home.join(format!("{name}.log")))?;
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.spawn().with_context(|| format!("cannot run {program}"))
}

/// A port that is free now.
pub async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// What a page of HTTP says.
pub async fn page(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// The sum of the values of a Prometheus metric without labels, over pages.
pub fn metric(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok());
    values.sum::<f64>() as u64
}

/// A process and those that it has started: PostgreSQL has one for each connection, in a group of its own.
fn family(parent: u32) -> Result<Vec<String>> {
    let mut pids = vec![parent.to_string()];
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit())
            && stat(&name)?.and_then(|fields| fields.get(1)?.parse::<u32>().ok()) == Some(parent)
        {
            pids.push(name);
        }
    }
    Ok(pids)
}

/// The fields of `/proc/PID/stat` behind the name, the first being the state; `None` if it has ended.
fn stat(pid: &str) -> Result<Option<Vec<String>>> {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(None) };
    let (_, rest) = text.rsplit_once(')').context("/proc/PID/stat has no name")?;
    Ok(Some(rest.split_whitespace().map(str::to_owned).collect()))
}

/// Processor time. Linux counts it in hundredths of a second for programs that read it here.
fn cpu(pid: &str) -> Result<Option<Duration>> {
    let Some(fields) = stat(pid)? else { return Ok(None) };
    let ticks = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Ok(Some(Duration::from_millis(ticks * 10)))
}

/// A line of `/proc/PID/status` that says bytes; 0 if it has ended.
fn memory(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// What the files under a directory occupy.
fn on_disk(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let Ok(entries) = fs::read_dir(path) else { return Ok(0) };
    for entry in entries.flatten() {
        // A file may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { on_disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
