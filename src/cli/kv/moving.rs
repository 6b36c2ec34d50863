//! A namespace into a file of JSON lines, and out of one.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;

use super::super::{
    bench,
    failure::Failure,
    options::Session,
    whole_file::{WholeFile, about},
};
use crate::{
    Error,
    contract::{
        Remote,
        transfer::{self, Exported, Imported, Progress},
    },
};

/// How often an export is begun because its revision could not be kept until the end.
const STARTS: u32 = 3;

#[derive(Args, Debug)]
#[command(
    after_help = "The file holds a JSON object for each value, as of one revision, with the attributes, and a first and a last line\n\
                  that say of which revision and how many. It has its name only once it is whole. Older versions, times and\n\
                  version numbers are not in it.\n\nExamples:\n  meshstore kv export users users.jsonl\n  meshstore kv export users | \
                  jq -r '.key // empty'"
)]
pub(in crate::cli) struct Export {
    /// The namespace
    namespace: String,
    /// The file, which must not exist; without it standard output
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The file is read wholly before anything is written: what is wrong in it is said with its line. It is what `kv export`\n\
                  writes, or lines like these, in any order:\n\n  {\"key\": \"user:1\", \"value\": {\"name\": \"Ada\"}, \"metadata\": \
                  {\"source\": \"import\"}}\n  {\"key\": \"logo\", \"bytes\": \"iVBORw0KGgo=\"}\n\nValues are written in batches. An \
                  import that was broken off can be run again, with --if-exists skip or\noverwrite.\n\nExamples:\n  meshstore kv import \
                  users users.jsonl\n  meshstore kv import users users.jsonl --if-exists skip"
)]
pub(in crate::cli) struct Import {
    /// The namespace; it is created if there is none
    namespace: String,
    /// The file
    file: PathBuf,
    /// What becomes of a value whose key is there already
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    if_exists: IfExists,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum IfExists {
    /// It is overwritten, and its attributes are merged
    Overwrite,
    /// It stays as it is
    Skip,
    /// The import stops there
    #[default]
    Fail,
}

impl From<IfExists> for transfer::IfExists {
    fn from(what: IfExists) -> Self {
        match what {
            IfExists::Overwrite => Self::Overwrite,
            IfExists::Skip => Self::Skip,
            IfExists::Fail => Self::Fail,
        }
    }
}

/// A bar that shows how far it is.
fn bar() -> (ProgressBar, impl FnMut(Progress) + Send) {
    let bar = ProgressBar::new(0).with_prefix("values");
    bar.set_style(bench::style("{prefix:>14} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}"));
    let shown = bar.clone();
    (bar, move |Progress { done, of }: Progress| {
        shown.set_length(of.max(done));
        shown.set_position(done);
    })
}

impl Export {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let storage = Remote::new(session.reader()?);
        let Self { namespace, file } = self;
        let Some(file) = file else {
            let mut out = BufWriter::new(io::stdout());
            transfer::export(&storage, &namespace, &mut out, &mut |_| ()).await?;
            return Ok(());
        };
        let (bar, mut progress) = bar();
        let mut starts = 1;
        let (out, Exported { revision, values }) = loop {
            let mut out = BufWriter::new(WholeFile::begin(&file, "an export")?);
            match transfer::export(&storage, &namespace, &mut out, &mut progress).await {
                Ok(exported) => break (out, exported),
                Err(transfer::Failure::Answer(Error::ViewTooOld { .. })) if starts < STARTS => starts += 1,
                Err(failure) => return Err(failure.into()),
            }
        };
        let out = out.into_inner().map_err(|error| about(error.error(), &file))?;
        out.end(|_| Ok(()))?;
        bar.finish_and_clear();
        let json = json!({ "file": file, "revision": revision, "values": values });
        session.out.answer(&json, || format!("{values} values as of revision {revision} in {}", file.display()))
    }
}

impl Import {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let storage = Remote::new(session.writer()?);
        let Self { namespace, file, if_exists } = self;
        let mut source = BufReader::new(File::open(&file).map_err(|error| about(&error, &file))?);
        let (bar, mut progress) = bar();
        let done = transfer::import(&storage, &namespace, &mut source, if_exists.into(), &mut progress).await;
        bar.finish_and_clear();
        let Imported { written, skipped } = done?;
        session.out.answer(&json!({ "written": written, "skipped": skipped }), || match skipped {
            0 => format!("{written} values written"),
            _ => format!("{written} values written, {skipped} were there already"),
        })
    }
}

impl From<transfer::Failure> for Failure {
    fn from(failure: transfer::Failure) -> Self {
        match failure {
            transfer::Failure::Answer(error) => Self::Answer(error),
            transfer::Failure::Line { .. } => Self::usage(failure.to_string()),
            transfer::Failure::Value { .. } => Self::Unmet(failure.to_string()),
            // Also that nobody reads standard output any more.
            transfer::Failure::File(error) => error.into(),
        }
    }
}
