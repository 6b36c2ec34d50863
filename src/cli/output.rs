//! The two faces of every answer: text for people, one JSON value for programs.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use crate::{
    client::{Json, Stored, Written},
    model::isolation::UNCOMMITTED,
};

/// Longest value that a table shows, in characters.
const CELL: usize = 80;

/// Where answers go.
pub(super) struct Output {
    pub(super) json: bool,
    /// Whether writes wait for the commit of a transaction.
    pub(super) waits: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, waits: false }
    }

    /// Exactly these bytes.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// Empties the terminal, if it is one that people look at.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        if self.json || !io::stdout().is_terminal() {
            return Ok(());
        }
        // To the upper left, and delete to the end.
        self.raw(b"\x1b[H\x1b[2J")
    }

    /// A line of text.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }

    /// The JSON value for a program, or the text for a person.
    pub(super) fn answer(&self, json: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        self.line(&if self.json { json.to_string() } else { text() })
    }

    /// What became of a write.
    pub(super) fn written(&self, written: Written) -> Result<(), Failure> {
        let Written { revision, leader_id } = written;
        self.answer(&json!({ "revision": revision, "leader_id": leader_id }), || match self.waits {
            true => Self::waiting(revision),
            false => format!("done at revision {revision} (leader: node {leader_id})"),
        })
    }

    /// What a person is told of a write that waits for the commit of its transaction.
    pub(super) fn waiting(revision: u64) -> String {
        format!("waits for the commit (the transaction reads revision {revision})")
    }

    /// A list: its items as JSON objects, or as rows of a table.
    pub(super) fn list(&self, columns: &[&str], list: List) -> Result<(), Failure> {
        let List { items, rows, next_cursor, revision } = list;
        let json = json!({ "items": items, "next_cursor": next_cursor, "revision": revision });
        self.answer(&json, || {
            let mut text = if rows.is_empty() { "none".into() } else { table(columns, rows) };
            if !next_cursor.is_empty() {
                text.push_str(&format!("\n\nmore with --cursor {next_cursor} (or all with --all)"));
            }
            text
        })
    }
}

/// A list in both faces.
#[derive(Default)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) next_cursor: String,
    /// `None` if several pages were joined of which only the items are known.
    pub(super) revision: Option<u64>,
}

/// A table, as wide as the terminal at most.
pub(super) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = terminal_width() {
        table.set_width(width);
    }
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Lines of `name  value`, the values in one column.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

/// Text that a terminal shows as it is: what would control it is escaped.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let controls = |char: char| char.is_control() && char != '\n' && char != '\t';
    if !text.contains(controls) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars().map(|char| if controls(char) { char.escape_default().to_string() } else { char.into() }).collect(),
    )
}

/// Bytes for a person: text if they are, else their base64.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => visible(text).into_owned(),
        Err(_) => format!("({} bytes, base64) {}", bytes.len(), BASE64_STANDARD.encode(bytes)),
    }
}

/// One line of a text, cut where a table would get too wide.
pub(super) fn cell(text: &str) -> String {
    let mut line: String =
        text.chars().map(|char| if char.is_whitespace() { ' ' } else { char }).take(CELL + 1).collect();
    if line.chars().count() > CELL {
        line.pop();
        line.push('…');
    }
    line
}

/// Bytes under `name` if they are text, else under `name_base64`.
pub(super) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    };
}

/// What the store knows of a value, as JSON members.
pub(super) fn put_version<T>(object: &mut Map<String, Value>, stored: &Stored<T>) {
    object.insert("version".into(), stored.version.into());
    object.insert("create_revision".into(), stored.create_revision.into());
    object.insert("mod_revision".into(), stored.mod_revision.into());
    object.insert("created_at_ms".into(), stored.created_at_ms.into());
    object.insert("updated_at_ms".into(), stored.updated_at_ms.into());
}

/// What the store knows of a value, as lines.
pub(super) fn version_fields<T>(stored: &Stored<T>) -> Vec<(&'static str, String)> {
    vec![
        ("version", stored.version.to_string()),
        ("created", format!("{} ({})", time(stored.created_at_ms), revision(stored.create_revision))),
        ("updated", format!("{} ({})", time(stored.updated_at_ms), revision(stored.mod_revision))),
    ]
}

/// A revision for a person; what waits for a commit has none.
pub(super) fn revision(revision: u64) -> String {
    if revision == UNCOMMITTED { "not committed".into() } else { format!("revision {revision}") }
}

/// A JSON text as a value. The store takes nothing else than JSON; if a text is none all the same, it is shown as it is.
pub(super) fn parsed(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| text.into())
}

/// A JSON value and what the store knows of it, in both faces.
pub(super) fn stored_json(
    key_name: &'static str,
    key: &str,
    name: &'static str,
    stored: &Stored<Json>,
) -> (Value, String) {
    let mut object = Map::new();
    object.insert(key_name.into(), key.into());
    object.insert(name.into(), parsed(stored.value.raw()));
    put_version(&mut object, stored);
    let mut lines = vec![(key_name, visible(key).into_owned()), (name, visible(stored.value.raw()).into_owned())];
    lines.extend(version_fields(stored));
    (Value::Object(object), fields(&lines))
}

/// The columns of [`json_row`].
pub(super) fn json_row(key: &str, stored: &Stored<Json>) -> Vec<String> {
    let (key, value) = (visible(key), visible(stored.value.raw()));
    vec![
        cell(&key),
        cell(&value),
        stored.version.to_string(),
        stored.mod_revision.to_string(),
        time(stored.updated_at_ms),
    ]
}

/// Milliseconds since 1970 as a date and time of day, UTC.
pub(super) fn time(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to a civil date, by eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", in_day % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(time(1_709_164_800_000 + 3_661_001), "2024-02-29T01:01:01.001Z");
        assert!(time(u64::MAX).starts_with("584556019-"));
    }

    #[test]
    fn a_value_cannot_control_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(shown(&[0xff, 0]), "(2 bytes, base64) /wA=");
        assert_eq!(cell("a\nb"), "a b");
        assert_eq!(cell(&"é".repeat(200)).chars().count(), CELL + 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_in_json() {
        let mut object = Map::new();
        put_bytes(&mut object, "value", b"text");
        put_bytes(&mut object, "content", &[0xff]);
        assert_eq!(Value::Object(object), json!({ "value": "text", "content_base64": "/w==" }));
    }
}
