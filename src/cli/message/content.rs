//! The content of messages: from a file to the store, and back.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::{
    failure::Failure,
    output::{self, Output},
};
use crate::{
    client::{LargeMessage, Message, Messages, Stored, Written},
    limits,
};

/// Stores a message, in chunks if it is too large for one.
pub(super) async fn store(messages: &Messages, message: Message) -> Result<Written, Failure> {
    if message.content.len() <= limits::VALUE_BYTES {
        return Ok(messages.store(message).await?);
    }
    let bar = bar(message.content.len() as u64);
    let shown = bar.clone();
    let written = messages.store_large_with(message, Arc::new(move |sent| shown.set_position(sent))).await;
    bar.finish_and_clear();
    Ok(written?)
}

/// Writes the content to standard output.
pub(super) async fn write_out(mut message: LargeMessage, out: &Output) -> Result<(), Failure> {
    while let Some(chunk) = message.next().await? {
        out.raw(&chunk)?;
    }
    Ok(())
}

/// Writes the content into a file, which appears when all of it is there and checked: the message without it.
pub(super) async fn save(mut message: LargeMessage, path: &Path) -> Result<Stored<Message>, Failure> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let cannot =
        |path: &Path, error: std::io::Error| Failure::usage(format!("cannot write {}: {error}", path.display()));
    let mut file = std::fs::File::create(&unfinished).map_err(|error| cannot(&unfinished, error))?;
    let bar = bar(message.size());
    let copied = async {
        while let Some(chunk) = message.next().await? {
            file.write_all(&chunk).map_err(|error| cannot(&unfinished, error))?;
            bar.inc(chunk.len() as u64);
        }
        file.sync_all().map_err(|error| cannot(&unfinished, error))?;
        std::fs::rename(&unfinished, path).map_err(|error| cannot(path, error))
    };
    let copied: Result<(), Failure> = copied.await;
    bar.finish_and_clear();
    if copied.is_err() {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(&unfinished);
    }
    copied?;
    let mut stored = message.message().clone();
    stored.value.large = Some(message.content());
    Ok(stored)
}

/// The content as a person sees it.
pub(super) fn shown(message: &Message) -> String {
    match message.large {
        None => output::shown(&message.content),
        Some(large) => format!("({} bytes)", large.size),
    }
}

/// Progress on standard error, if somebody looks at it.
fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(bytes);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
