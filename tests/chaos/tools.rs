//! Programs that are started to do what no library here does, and what this machine offers.

use std::process::{Command, Stdio};

/// Runs a program to its end: what it printed, or what went wrong.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    // Mounting takes a while; other tasks go on meanwhile.
    let output = tokio::task::block_in_place(|| {
        Command::new(program).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output()
    });
    let told = || format!("{program} {}", arguments.join(" "));
    let output = output.map_err(|error| format!("{}: {error}", told()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {} ({})", told(), said.trim(), output.status))
}

/// The same, where nothing may go wrong.
pub fn must(program: &str, arguments: &[&str]) -> String {
    run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is such a program.
pub fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|directory| std::path::Path::new(directory).join(program).exists())
}

/// What is missing of these, as a reason to skip something; nothing if all is there.
pub fn missing(root: bool, programs: &[&str]) -> Option<String> {
    if root && !is_root() {
        return Some("needs root".into());
    }
    programs.iter().find(|program| !has(program)).map(|program| format!("needs the program {program}"))
}

/// The library that fakes the time of a process.
pub fn faketime() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    places.into_iter().find(|place| std::path::Path::new(place).exists())
}

/// Takes away what test programs left behind that were killed themselves: namespaces with what runs in them, volumes,
/// directories. Each of them has the number of its process in its name.
pub fn sweep() {
    let is_gone =
        |number: &str| number.parse::<u32>().is_ok_and(|_| !std::path::Path::new("/proc").join(number).exists());
    if is_root() && has("ip") {
        for line in run("ip", &["netns", "list"]).unwrap_or_default().lines() {
            let space = line.split(' ').next().unwrap_or_default();
            let process = space.strip_prefix("meshstore-").and_then(|rest| rest.split('-').next());
            if process.is_some_and(is_gone) {
                for pid in run("ip", &["netns", "pids", space]).unwrap_or_default().lines() {
                    let _ = run("kill", &["-KILL", pid]);
                }
                let _ = run("ip", &["netns", "delete", space]);
            }
        }
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let process = name.to_str().and_then(|name| name.strip_prefix(super::cluster::DIRECTORY)?.split('-').next());
        if process.is_some_and(is_gone) {
            for inside in std::fs::read_dir(&path).unwrap().flatten().filter(|inside| inside.path().is_dir()) {
                let _ = run("umount", &["-l", inside.path().to_str().unwrap()]);
            }
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
