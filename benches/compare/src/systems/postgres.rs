//! PostgreSQL: a primary and two standbys. A commit waits until one of them has synced it, so that it is on two of three
//! disks, as with the others.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio_postgres::{NoTls, Statement};

use super::{Client, Events};
use crate::{
    load::{FOUND, Op, Turn, document, group},
    processes::{Nodes, free_port},
};

/// Connections; more clients share them.
const CONNECTIONS: usize = 100;
const MESSAGES: &str = "
    CREATE TABLE messages (id text PRIMARY KEY, sender text NOT NULL, receiver text NOT NULL, content bytea NOT NULL, time bigint NOT NULL);
    CREATE INDEX ON messages (time, id);
    CREATE INDEX ON messages (sender, time, id);
    CREATE INDEX ON messages (receiver, time, id);
    CREATE INDEX ON messages (sender, receiver, time, id)";
const DOCUMENTS: &str = "
    CREATE TABLE documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), document jsonb NOT NULL);
    CREATE UNIQUE INDEX ON documents (((document->>'number')::bigint));
    CREATE INDEX ON documents ((document->>'group'), ((document->>'n')::bigint))";
const INSERT: &str = "INSERT INTO documents (document) VALUES (($1::text)::jsonb)";
const FIND: &str = "
    SELECT document::text FROM documents WHERE document->>'group' = $1 AND (document->>'n')::bigint < $2
    ORDER BY (document->>'n')::bigint DESC LIMIT 10";
/// Documents that are inserted at once to fill it.
const FILL: u64 = 1_000;
const STORE: &str = "
    INSERT INTO messages (id, sender, receiver, content, time) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO UPDATE SET sender = $2, receiver = $3, content = $4, time = $5";

pub struct Postgres {
    clients: Vec<Session>,
}

/// A command of PostgreSQL, which refuses to run as root.
fn command(bin: &Path, name: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(bin.join(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(bin.join(name));
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

pub async fn start(bin: &Path, home: &Path) -> Result<(Nodes, Postgres)> {
    let mut nodes = Nodes::new(home);
    fs::set_permissions(home, fs::Permissions::from_mode(0o755))?;
    let data = home.join("postgres");
    fs::create_dir(&data)?;
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("postgres:").arg(&data))?;
    }
    let port = free_port().await?;
    let primary = data.join("primary");
    run(command(bin, "initdb").args(["--auth=trust", "--username=postgres", "-D"]).arg(&primary))?;
    let mut serving = serve(bin, &primary, port);
    serving.args(["-c", "synchronous_standby_names=ANY 1 (s1, s2)"]);
    nodes.spawn("primary", serving)?;
    let config = format!("host=127.0.0.1 port={port} user=postgres");
    nodes.ready(|| async { tokio_postgres::connect(&config, NoTls).await.is_ok() }).await?;
    for name in ["s1", "s2"] {
        let standby = data.join(name);
        let source = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
        run(command(bin, "pg_basebackup")
            .args(["--write-recovery-conf", "--checkpoint=fast", "-d", &source, "-D"])
            .arg(&standby))?;
        nodes.spawn(name, serve(bin, &standby, free_port().await?))?;
    }
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    let streaming = || async {
        let rows = client.query_one("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", &[]).await;
        rows.is_ok_and(|row| row.get::<_, i64>(0) == 2)
    };
    nodes.ready(streaming).await?;
    client.batch_execute(MESSAGES).await?;
    client.batch_execute(DOCUMENTS).await?;
    let mut postgres = Postgres { clients: Vec::new() };
    for _ in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        let [store, insert, find] =
            [client.prepare(STORE).await?, client.prepare(INSERT).await?, client.prepare(FIND).await?];
        postgres.clients.push(Session { client: client.into(), store, insert, find });
    }
    Ok((nodes, postgres))
}

fn serve(bin: &Path, data: &Path, port: u16) -> Command {
    let mut command = command(bin, "postgres");
    command.arg("-D").arg(data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    command.args(["-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=512MB"]);
    command.args(["-c", "max_wal_size=4GB", "-c", "synchronous_commit=on"]);
    command
}

impl Postgres {
    /// Syncs of the primary's log: what the standbys sync is not counted by them.
    pub async fn syncs(&self) -> Result<u64> {
        let session = self.clients.first().context("no connection")?;
        let row = session.client.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await?;
        Ok(row.get::<_, i64>(0).try_into()?)
    }

    pub async fn client(&self, number: u32) -> Result<Session> {
        self.clients.get(number as usize % CONNECTIONS).cloned().context("no connection")
    }

    pub async fn fill_documents(&self, count: u64, text: usize) -> Result<()> {
        let session = self.client(0).await?;
        for first in (0..count).step_by(FILL as usize) {
            let numbers = first..count.min(first + FILL);
            let texts: Vec<String> = numbers.map(|number| document(number, &group(number), text).to_string()).collect();
            let insert = "INSERT INTO documents (document) SELECT text::jsonb FROM unnest($1::text[]) AS text";
            session.client.execute(insert, &[&texts]).await?;
        }
        session.client.batch_execute("ANALYZE documents").await?;
        Ok(())
    }
}

/// A connection with what is prepared on it.
#[derive(Clone)]
pub struct Session {
    client: std::sync::Arc<tokio_postgres::Client>,
    store: Statement,
    insert: Statement,
    find: Statement,
}

#[async_trait]
impl Client for Session {
    async fn call(&self, op: Op, turn: &mut Turn) -> Result<()> {
        match op {
            Op::Message => {
                let (from, to) = (format!("node-{}", turn.client % 100), format!("node-{}", turn.calls % 100));
                let content: &[u8] = &turn.value;
                let time = turn.calls as i64;
                self.client.execute(&self.store, &[&turn.new_key(), &from, &to, &content, &time]).await?;
            }
            Op::Insert => {
                let new = document(turn.new_number(), "new", turn.value.len()).to_string();
                self.client.execute(&self.insert, &[&new]).await?;
            }
            Op::Find => {
                let (group, bound) = turn.place();
                let found = self.client.query(&self.find, &[&group, &(bound as i64)]).await?.len();
                if found != FOUND {
                    bail!("{found} documents instead of {FOUND}");
                }
            }
            _ => bail!("not a call of PostgreSQL"),
        }
        Ok(())
    }

    async fn watch(&self) -> Result<Box<dyn Events>> {
        bail!("PostgreSQL has no watch")
    }
}
