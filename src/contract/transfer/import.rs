//! A file into a namespace, and one namespace into another.

use std::{
    collections::HashMap,
    io::{BufRead, Read, Seek, SeekFrom},
};

use super::{
    Failure, OnProgress, Progress,
    line::{self, Parsed},
};
use crate::{
    Error,
    contract::{CountOptions, Entry, SetEntry, SetManyOptions, SetResult, Storage, walk::Walk},
    limits,
    model::{kind, kv::DEFAULT_NAMESPACE},
};

/// Most values of one batch...
const BATCH: usize = 512;
/// ... which is closed at so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Longest line: a value of which every byte is escaped, its attributes, its key.
const LINE_BYTES: u64 = 6 * (limits::VALUE_BYTES + limits::ATTRIBUTES_BYTES + limits::KEY_BYTES) as u64 + 1_024;

const _: () = assert!(BATCH <= limits::CHANGES);
const _: () = assert!(BATCH_BYTES + limits::VALUE_BYTES + limits::ATTRIBUTES_BYTES < limits::TRANSACTION_BYTES);

/// What becomes of a value whose key is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// It is overwritten; its attributes are merged, as in any write.
    Overwrite,
    /// It stays as it is.
    Skip,
    /// The import ends with an error.
    #[default]
    Fail,
}

/// What was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Values that were written.
    pub written: u64,
    /// Values that were there already, and were left as they are.
    pub skipped: u64,
}

/// Writes the values of a file into a namespace, which is created if there is none. The file is read twice: to check it
/// wholly, and to write.
///
/// Errors: `Line` if the file is not what it should be: then nothing was written; `Value` if the store refuses one (also one
/// that exists already, with [`IfExists::Fail`]); others as of [`Storage::set_many`]. After an error it can be run again.
pub async fn import<R: BufRead + Seek + Send>(
    storage: &dyn Storage,
    namespace: &str,
    source: &mut R,
    if_exists: IfExists,
    progress: OnProgress<'_>,
) -> Result<Imported, Failure> {
    let begin = source.stream_position()?;
    let values = check(source)?;
    source.seek(SeekFrom::Start(begin))?;
    let mut writer = Writer::new(storage, namespace, if_exists, values);
    let (mut lines, mut number) = (Lines { source, buffer: Vec::new() }, 0);
    while let Some(text) = lines.next(number + 1)? {
        number += 1;
        if let Parsed::Value(entry) = parse(text, number)? {
            writer.add(number, entry).await?;
            progress(writer.progress);
        }
    }
    writer.end(progress).await
}

/// Writes all values of a namespace as of one revision into a namespace of another store, or of the same.
///
/// Errors: `ViewTooOld` if the revision could not be kept until the end; those of [`import`].
pub async fn copy(
    (from, source): (&dyn Storage, &str),
    (to, namespace): (&dyn Storage, &str),
    if_exists: IfExists,
    progress: OnProgress<'_>,
) -> Result<Imported, Failure> {
    let mut walk = Walk::begin(from, source, ("", true)).await?;
    let values = from.count(CountOptions::from(source)).await?;
    let (mut writer, mut number) = (Writer::new(to, namespace, if_exists, values), 0);
    while let Some(entries) = walk.next().await? {
        for Entry { key, value, metadata } in entries {
            number += 1;
            let attributes = metadata.attributes.filter(|_| metadata.attributes_revision > 0);
            writer.add(number, SetEntry { metadata: attributes, ..SetEntry::new(key, value) }).await?;
        }
        progress(writer.progress);
    }
    writer.end(progress).await
}

/// Reads a file wholly: how many values are in it. Errors: what is wrong in it, with its line.
fn check(source: &mut impl BufRead) -> Result<u64, Failure> {
    let wrong = |number, what: &str| Failure::Line { number, what: what.into() };
    let (mut lines, mut number) = (Lines { source, buffer: Vec::new() }, 0);
    let (mut values, mut is_export, mut ended) = (0, false, false);
    // An export is sorted, so only the key before is kept; people write in any order.
    let (mut before, mut seen) = (None, HashMap::new());
    while let Some(text) = lines.next(number + 1)? {
        number += 1;
        if ended {
            return Err(wrong(number, "nothing may follow the last line of an export"));
        }
        match parse(text, number)? {
            Parsed::Head if number == 1 => is_export = true,
            Parsed::Head => return Err(wrong(number, "an export begins here, in the middle of the file")),
            Parsed::End(_) if !is_export => return Err(wrong(number, "an export ends here, which did not begin")),
            Parsed::End(end) if end.values != values => {
                let what = format!("the export says that it has {} values, but {values} are there", end.values);
                return Err(wrong(number, &what));
            }
            Parsed::End(_) => ended = true,
            Parsed::Value(entry) if is_export => {
                if before.as_ref().is_some_and(|before| *before >= entry.key) {
                    let what = "the keys of an export ascend, and this one does not: leave the first and last line out to \
                                import a file that was changed";
                    return Err(wrong(number, what));
                }
                before = Some(entry.key);
                values += 1;
            }
            Parsed::Value(entry) => {
                if let Some(first) = seen.insert(entry.key, number) {
                    return Err(wrong(number, &format!("this key stands in line {first}, too")));
                }
                values += 1;
            }
        }
    }
    match is_export && !ended {
        true => Err(wrong(number + 1, "the export is cut off here: its last line is missing")),
        false => Ok(values),
    }
}

fn parse(text: &str, number: u64) -> Result<Parsed, Failure> {
    line::parse(text).map_err(|what| Failure::Line { number, what })
}

/// The lines of a file, each of a bounded length.
struct Lines<'a, R> {
    source: &'a mut R,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next, which has this number; `None` behind the last.
    fn next(&mut self, number: u64) -> Result<Option<&str>, Failure> {
        self.buffer.clear();
        self.source.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.buffer)?;
        let wrong = |what: &str| Failure::Line { number, what: what.into() };
        if self.buffer.len() as u64 == LINE_BYTES && !self.buffer.ends_with(b"\n") {
            return Err(wrong("is too long to be a value"));
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let text = str::from_utf8(&self.buffer).map_err(|_| wrong("must be UTF-8 text"))?;
        Ok(Some(text.trim_end_matches(['\n', '\r'])))
    }
}

/// Collects batches and writes them.
struct Writer<'a> {
    storage: &'a dyn Storage,
    namespace: &'a str,
    if_exists: IfExists,
    batch: Vec<(u64, SetEntry)>,
    bytes: usize,
    imported: Imported,
    progress: Progress,
}

impl<'a> Writer<'a> {
    fn new(storage: &'a dyn Storage, namespace: &'a str, if_exists: IfExists, of: u64) -> Self {
        let progress = Progress { done: 0, of };
        Self { storage, namespace, if_exists, batch: vec![], bytes: 0, imported: Imported::default(), progress }
    }

    async fn add(&mut self, number: u64, entry: SetEntry) -> Result<(), Failure> {
        self.bytes += entry.key.len() + entry.value.len() + entry.metadata.as_ref().map_or(0, String::len);
        self.batch.push((number, entry));
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES { self.write().await } else { Ok(()) }
    }

    async fn end(mut self, progress: OnProgress<'_>) -> Result<Imported, Failure> {
        self.write().await?;
        progress(self.progress);
        Ok(self.imported)
    }

    async fn write(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let (numbers, entries): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().unzip();
        let lines: HashMap<String, u64> = entries.iter().map(|entry| entry.key.clone()).zip(numbers).collect();
        let options = SetManyOptions {
            namespace: self.namespace.into(),
            metadata: None,
            overwrite: self.if_exists == IfExists::Overwrite,
            // So each says by itself why it is not written; with `Fail` a batch is written wholly or not at all.
            per_key: self.if_exists != IfExists::Fail,
            transaction: None,
        };
        let written = self.storage.set_many(entries.clone(), options.clone()).await;
        let mut results = written.map_err(|error| self.refused(error, &lines))?;
        if results.iter().any(|result| result.error == SetResult::LOST) {
            // It was executed, and the answer of that is lost. Whatever it was, once more it is the same.
            let again = self.storage.set_many(entries, options).await;
            results = again.map_err(|error| self.refused(error, &lines))?;
        }
        let mut refused = None;
        for result in results {
            match &result.error {
                none if none.is_empty() => self.imported.written += 1,
                error if self.if_exists == IfExists::Skip && *error == self.exists(&result.key) => {
                    self.imported.skipped += 1;
                }
                error => refused = refused.or(Some((result.key.clone(), error.clone()))),
            }
        }
        if let Some((key, error)) = refused {
            return Err(self.failure(key, error, &lines));
        }
        self.progress.done += lines.len() as u64;
        Ok(())
    }

    /// What is said of a whole batch, of the value that it is about if it names one.
    fn refused(&self, error: Error, lines: &HashMap<String, u64>) -> Failure {
        let named = |key: &&String| error.to_string() == self.exists(key);
        match lines.keys().find(named) {
            Some(key) => self.failure(key.clone(), error.to_string(), lines),
            None => Failure::Answer(error),
        }
    }

    fn failure(&self, key: String, error: String, lines: &HashMap<String, u64>) -> Failure {
        let number = lines.get(&key).copied().unwrap_or_default();
        Failure::Value { number, key, error, written: self.imported.written }
    }

    /// What the contract says of a value that exists already.
    fn exists(&self, key: &str) -> String {
        let namespace = if self.namespace.is_empty() { DEFAULT_NAMESPACE } else { self.namespace };
        Error::AlreadyExists { kind: kind::VALUE, name: format!("{key} in namespace {namespace}") }.to_string()
    }
}
