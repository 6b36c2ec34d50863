//! Queries: which values, by what is in them.

use clap::Args;
use serde_json::Value as Json;

use super::{
    super::{
        explained,
        failure::Failure,
        input,
        options::{Session, part},
        output::List,
    },
    In, show,
};
use crate::client::{Filter, KvQuery, Operator, SortField};

const CONDITIONS: &str = "A condition is FIELD OPERATOR VALUE. The operators: = != > >= < <=, ^= (begins with), $= (ends with),\n*= (contains), or as words between spaces: eq ne gt gte lt lte contains startsWith endsWith in nin.\nVALUE is JSON, or a text that is none. FIELD is $key, $value, $metadata, or a path: address.city, tags.0.\n\nThe JSON form has and, or and not:\n  [{\"field\": \"age\", \"operator\": \"gte\", \"value\": 18}, {\"or\": [...]}, {\"not\": {...}}]";

/// Which values.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Wanted {
    /// A filter in its JSON form, or - for standard input, or @FILE
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// A condition, like 'age>=18'; several must all hold
    #[arg(long = "where", short = 'w', value_name = "CONDITION", allow_hyphen_values = true)]
    conditions: Vec<String>,
}

impl Wanted {
    pub(super) fn filter(&self) -> Result<Filter, Failure> {
        let mut all = match &self.filter {
            None => Vec::new(),
            Some(argument) => match Filter::parse(&input::text(argument)?)? {
                Filter::All(all) => all,
                one => vec![one],
            },
        };
        for text in &self.conditions {
            all.push(condition(text)?);
        }
        Ok(Filter::All(all))
    }
}

/// Reads a condition as people write it.
fn condition(text: &str) -> Result<Filter, Failure> {
    // A longer one before what it begins with.
    const SIGNS: [(&str, Operator); 10] = [
        (">=", Operator::Gte),
        ("<=", Operator::Lte),
        ("!=", Operator::Ne),
        ("^=", Operator::StartsWith),
        ("$=", Operator::EndsWith),
        ("*=", Operator::Contains),
        ("==", Operator::Eq),
        ("=", Operator::Eq),
        (">", Operator::Gt),
        ("<", Operator::Lt),
    ];
    let mut words = text.trim().splitn(3, char::is_whitespace);
    if let (Some(field), Some(Ok(operator))) = (words.next(), words.next().map(str::parse))
        && !SIGNS.iter().any(|(sign, _)| field.contains(sign))
    {
        return Ok(Filter::field(field, operator, operand(words.next().unwrap_or_default())));
    }
    // The earliest; where two begin at one place the longer.
    let found = SIGNS.iter().filter_map(|(sign, operator)| text.find(sign).map(|at| (at, *sign, *operator)));
    let found = found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
    let Some((at, sign, operator)) = found else {
        let rule =
            format!("{text:?} is no condition: it must be FIELD OPERATOR VALUE, like 'age>=18' or 'name startsWith A'");
        return Err(Failure::usage(rule));
    };
    let (field, value) = (text.get(..at).unwrap_or_default(), text.get(at + sign.len()..).unwrap_or_default());
    Ok(Filter::field(field.trim(), operator, operand(value)))
}

/// JSON as it is; anything else is a text.
fn operand(text: &str) -> String {
    let text = text.trim();
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => Json::from(text).to_string(),
    }
}

/// Fields with commas between; one with a minus in front descends.
pub(in crate::cli) fn fields(text: &str) -> Vec<SortField> {
    let field = |field: &str| match field.strip_prefix('-') {
        Some(field) => SortField::descending(field),
        None => SortField::ascending(field),
    };
    text.split(',').map(str::trim).filter(|field| !field.is_empty()).map(field).collect()
}

/// Fields as they were written.
pub(in crate::cli) fn written(fields: &[SortField]) -> String {
    let one = |SortField { field, descending }: &SortField| format!("{}{field}", if *descending { "-" } else { "" });
    fields.iter().map(one).collect::<Vec<_>>().join(",")
}

#[derive(Args, Debug)]
#[command(after_help = format!("{CONDITIONS}\n\nExamples:\n  meshstore kv query -n users --where 'age>=18' --where 'address.city=Rome' --sort name,-age\n  meshstore kv query -n users '{{\"field\": \"tags\", \"operator\": \"contains\", \"value\": \"admin\"}}'\n  meshstore kv query -n users --where 'age in [18, 21]' --explain"))]
pub(in crate::cli) struct Query {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    place: In,
    /// Fields, with commas between; with a minus in front: the greatest first. Otherwise by key
    #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    sort: String,
    /// Most values, up to 1000; 0: none
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    #[arg(allow_negative_numbers = true)]
    limit: u32,
    /// Leave out so many at the beginning
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    offset: u64,
    /// Go on where another page ended
    #[arg(long, value_name = "CURSOR", conflicts_with = "offset")]
    cursor: Option<String>,
    /// All values, however many pages they are
    #[arg(long, conflicts_with_all = ["limit", "offset", "cursor"])]
    all: bool,
    /// Show how the values are found, and not the values
    #[arg(long, conflicts_with = "all")]
    explain: bool,
}

impl Query {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { wanted, place, sort, limit, offset, cursor, all, explain } = self;
        let query = place.read(session)?.query(wanted.filter()?).sort(fields(&sort));
        let page: KvQuery = query.clone().limit(limit).offset(offset).cursor(cursor.unwrap_or_default());
        if explain {
            let explanation = page.explain().await?.explanation;
            return explained::answer(&session.out, &explanation, "values");
        }
        let (entries, next_cursor, revision) = part(all, query.all(), page.page()).await?;
        let items = entries.iter().map(show::object).collect();
        let rows = entries.iter().map(show::row).collect();
        session.out.list(&show::COLUMNS, List { items, rows, next_cursor, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_as_people_write_it() {
        for (text, field, operator, operand) in [
            ("age>=18", "age", Operator::Gte, "18"),
            ("age >= 18", "age", Operator::Gte, "18"),
            ("age<18", "age", Operator::Lt, "18"),
            ("name=Ada", "name", Operator::Eq, "\"Ada\""),
            ("name==Ada", "name", Operator::Eq, "\"Ada\""),
            ("name=\"18\"", "name", Operator::Eq, "\"18\""),
            ("name!=", "name", Operator::Ne, "\"\""),
            ("name=a=b", "name", Operator::Eq, "\"a=b\""),
            ("$key^=user:", "$key", Operator::StartsWith, "\"user:\""),
            ("file$=.rs", "file", Operator::EndsWith, "\".rs\""),
            ("tags*=x", "tags", Operator::Contains, "\"x\""),
            ("age in [1, 2]", "age", Operator::In, "[1, 2]"),
            ("name startsWith A >= B", "name", Operator::StartsWith, "\"A >= B\""),
            ("a eq null", "a", Operator::Eq, "null"),
            ("n=-1", "n", Operator::Eq, "-1"),
            ("title=a eq b", "title", Operator::Eq, "\"a eq b\""),
        ] {
            assert_eq!(condition(text).unwrap(), Filter::field(field, operator, operand), "{text}");
        }
        assert!(matches!(condition("age"), Err(Failure::Usage(_))));
        assert!(matches!(condition("age like 18"), Err(Failure::Usage(_))));
    }

    #[test]
    fn fields_are_read_and_written() {
        let read = fields("name, -age");
        assert_eq!(read, [SortField::ascending("name"), SortField::descending("age")]);
        assert_eq!(written(&read), "name,-age");
        assert!(fields("").is_empty());
    }
}
