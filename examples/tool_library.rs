//! A street shares its tools. The application knows the storage contract, and not what is behind it:
//!
//! ```text
//! cargo run --example tool_library                                                     # in memory
//! cargo run --features sqlite --example tool_library -- --backend sqlite:tools.db      # one file
//! cargo run --example tool_library -- --backend meshstore://127.0.0.1:7401             # a cluster
//! ```
//!
//! It prints the same each time. A tool is a typed value; whoever borrows one changes it by read-modify-write, so of five
//! neighbours who want the ladder at once exactly one gets it, wherever they run; and who has had a tool is read in the older
//! versions that the namespace keeps.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "an example")]

use std::{error::Error as Problem, fmt, io::Write, sync::Arc};

use meshstore::{
    Client, Error, Storage,
    backends::Memory,
    contract::{
        CreateNamespaceOptions, DeleteNamespaceOptions, Modify, NamespaceSettings, Remote, SetMetadataOptions, Typed,
        Version,
    },
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Where the tools stand.
const TOOLS: &str = "tools";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tool {
    owner: String,
    /// Who has it, if it is not at home.
    borrower: Option<String>,
}

/// Why somebody does not get a tool.
#[derive(Debug)]
enum Refusal {
    Unknown,
    With(String),
    NotYours,
    Storage(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("nobody here has such a thing"),
            Self::With(borrower) => write!(f, "{borrower} has it"),
            Self::NotYours => f.write_str("somebody else has it"),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl Problem for Refusal {}

/// The street's tools.
#[derive(Clone)]
struct Library {
    storage: Arc<dyn Storage>,
    tools: Typed<Tool>,
}

impl Library {
    /// An empty library, of which the last 16 versions of each tool are kept.
    async fn found(storage: Arc<dyn Storage>) -> Result<Self, Error> {
        match storage.delete_namespace(TOOLS, DeleteNamespaceOptions { recursive: true }).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let settings = NamespaceSettings { history: 16, ..NamespaceSettings::default() };
        storage
            .create_namespace(TOOLS, CreateNamespaceOptions { settings, ..CreateNamespaceOptions::default() })
            .await?;
        Ok(Self { tools: storage.typed(TOOLS), storage })
    }

    /// Somebody lets the others have a tool, which lies on this shelf.
    async fn offer(&self, name: &str, owner: &str, shelf: &str) -> Result<(), Error> {
        self.tools.create(name, &Tool { owner: owner.into(), borrower: None }).await?;
        let note = serde_json::json!({ "shelf": shelf }).to_string();
        self.storage.set_metadata(name, &note, SetMetadataOptions::from(TOOLS)).await?;
        Ok(())
    }

    /// Somebody takes a tool home, if it is there.
    async fn borrow(&self, name: &str, who: &str) -> Result<(), Refusal> {
        let take = |tool: Option<Tool>| {
            let tool = tool.ok_or(Refusal::Unknown)?;
            match tool.borrower {
                Some(borrower) => Err(Refusal::With(borrower)),
                None => Ok(Modify::Write(Tool { borrower: Some(who.into()), ..tool })),
            }
        };
        self.tools.read_modify_write(name, take).await.map(drop)
    }

    /// Somebody brings it back.
    async fn give_back(&self, name: &str, who: &str) -> Result<(), Refusal> {
        let put = |tool: Option<Tool>| {
            let tool = tool.ok_or(Refusal::Unknown)?;
            match tool.borrower.as_deref() == Some(who) {
                true => Ok(Modify::Write(Tool { borrower: None, ..tool })),
                false => Err(Refusal::NotYours),
            }
        };
        self.tools.read_modify_write(name, put).await.map(drop)
    }

    /// All who have had a tool, the first at the front.
    async fn borrowers(&self, name: &str) -> Result<Vec<String>, Error> {
        let mut borrowers = Vec::new();
        for version in self.storage.history(name, TOOLS.into()).await?.into_iter().rev() {
            let Version::Value(entry) = version else { continue };
            borrowers.extend(entry.value.parse::<Tool>()?.borrower);
        }
        Ok(borrowers)
    }
}

/// A week in the street. What happens is written to `out`.
pub async fn run(storage: Arc<dyn Storage>, out: &mut (dyn Write + Send)) -> Result<(), Box<dyn Problem>> {
    let library = Library::found(Arc::clone(&storage)).await?;
    for (name, owner, shelf) in
        [("ladder", "Ada", "garage"), ("drill", "Alan", "cellar"), ("saw", "Grace", "shed"), ("spade", "Ada", "shed")]
    {
        library.offer(name, owner, shelf).await?;
    }
    writeln!(out, "Monday: the street has {} tools", storage.count(TOOLS.into()).await?)?;
    if let Err(error) = library.offer("drill", "Edsger", "attic").await {
        writeln!(out, "  another drill? {error}")?;
    }

    library.borrow("drill", "Barbara").await?;
    let told = library.borrow("drill", "Edsger").await.unwrap_err();
    writeln!(out, "Tuesday: Barbara takes the drill; Edsger would like it, too, but {told}")?;
    let told = library.borrow("crane", "Edsger").await.unwrap_err();
    writeln!(out, "  he asks for a crane, but {told}")?;

    let mut neighbours = JoinSet::new();
    for who in ["Barbara", "Donald", "Edsger", "Frances", "Tony"] {
        let library = library.clone();
        neighbours.spawn(async move { library.borrow("ladder", who).await.map(|()| who) });
    }
    let (mut lucky, mut others) = (Vec::new(), 0);
    while let Some(came) = neighbours.join_next().await {
        match came? {
            Ok(who) => lucky.push(who),
            Err(Refusal::With(_)) => others += 1,
            Err(error) => return Err(error.into()),
        }
    }
    writeln!(out, "Wednesday: all want the ladder; {} gets it, {others} are told who has it", lucky.len())?;

    library.give_back("drill", "Barbara").await?;
    let told = library.give_back("drill", "Barbara").await.unwrap_err();
    writeln!(out, "Thursday: Barbara brings the drill back; twice she cannot: {told}")?;
    for who in ["Edsger", "Donald"] {
        library.borrow("drill", who).await?;
        library.give_back("drill", who).await?;
    }
    writeln!(out, "Friday: the drill was with {}", library.borrowers("drill").await?.join(", then with "))?;

    for who in lucky {
        library.give_back("ladder", who).await?;
    }
    writeln!(out, "Saturday: everything is back")?;
    for tool in library.tools.list("").await? {
        let note = storage.get_metadata(&tool.key, TOOLS.into()).await?.attributes.unwrap_or_default();
        let (name, owner, loans) = (&tool.key, &tool.value.owner, library.borrowers(&tool.key).await?.len());
        writeln!(out, "  {name}, of {owner}: borrowed {loans} times; {note}")?;
    }
    Ok(())
}

/// What `--backend` names.
pub async fn open(backend: &str) -> Result<Arc<dyn Storage>, Box<dyn Problem>> {
    match backend {
        "memory" => Ok(Arc::new(Memory::new()?)),
        #[cfg(feature = "sqlite")]
        file if file.starts_with("sqlite:") => Ok(Arc::new(meshstore::Sqlite::open(file["sqlite:".len()..].as_ref())?)),
        cluster if cluster.starts_with("meshstore://") => Ok(Arc::new(Remote::new(Client::connect_to(cluster).await?))),
        other => {
            Err(format!("{other} is none of memory, sqlite:FILE (with the feature sqlite), meshstore://HOST:PORT")
                .into())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Problem>> {
    let backend = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => "memory".to_owned(),
        [flag, backend] if flag == "--backend" => backend.clone(),
        _ => return Err("usage: tool_library [--backend memory|sqlite:FILE|meshstore://HOST:PORT]".into()),
    };
    run(open(&backend).await?, &mut std::io::stdout()).await
}
