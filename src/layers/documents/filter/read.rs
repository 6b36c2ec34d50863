//! Reading filters: what their operators are, and what may stand where.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::value::RawValue;

use super::{
    super::{
        super::query::filter as query,
        path::{self, Path},
    },
    Element, ElementTest, Matcher, Node, Test, members,
};
use crate::{Error, Result, limits, model::filter::Operator};

/// Longest pattern of a regular expression, in bytes.
pub(super) const PATTERN_BYTES: usize = 1_024;
/// Most memory of one, in bytes.
const REGEX_BYTES: usize = 256 << 10;
/// Most of them in a filter.
const REGEXES: usize = 8;

/// Whether a JSON object is one of operators: one of its members begins with `$`.
fn is_operators(members: &BTreeMap<String, &RawValue>) -> bool {
    members.keys().any(|name| name.starts_with('$'))
}

/// How a filter is read: how many conditions it has so far, and whether it is one of documents or of elements.
pub(super) struct Reader {
    conditions: usize,
    regexes: usize,
    documents: bool,
}

const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $regex (with $options), $exists, $contains, $startsWith, \
                         $elemMatch, $size, $not";

impl Reader {
    /// Of a filter of documents, or of elements.
    pub(super) fn new(documents: bool) -> Self {
        // Of an update there may be many.
        let regexes = if documents { 0 } else { REGEXES - 1 };
        Self { conditions: 0, regexes, documents }
    }

    fn count(&mut self, place: &str) -> Result<()> {
        self.conditions += 1;
        if self.conditions > limits::FILTER_CONDITIONS {
            let rule = format!("must have at most {} conditions", limits::FILTER_CONDITIONS);
            return Err(Error::invalid(place, "", rule));
        }
        Ok(())
    }

    pub(super) fn filter(&mut self, text: &str, place: &str) -> Result<Node> {
        let mut nodes = Vec::new();
        for (name, raw) in members(place, text)? {
            let place = format!("{place}.{name}");
            self.count(&place)?;
            nodes.push(match name.as_str() {
                "$and" => Node::All(self.list(raw, &place)?),
                "$or" => Node::Any(self.list(raw, &place)?),
                "$nor" => Node::Not(Box::new(Node::Any(self.list(raw, &place)?))),
                "$not" => Node::Not(Box::new(self.filter(raw.get(), &place)?)),
                unknown if unknown.starts_with('$') => {
                    let rule = "is no operator between conditions; these are: $and, $or, $nor, $not";
                    return Err(Error::invalid(place, "", rule));
                }
                name => Node::Field(self.path(&place, name)?, self.condition(raw, &place)?),
            });
        }
        Ok(Node::All(nodes))
    }

    fn path(&self, place: &str, name: &str) -> Result<Path> {
        if self.documents { path::parse(place, name) } else { path::segments(place, name).map(Path::Of) }
    }

    fn list(&mut self, raw: &RawValue, place: &str) -> Result<Vec<Node>> {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| Error::invalid(place, raw.get(), "must be a list of filters"))?;
        if items.is_empty() {
            return Err(Error::invalid(place, "", "must have at least one filter"));
        }
        items.into_iter().enumerate().map(|(at, item)| self.filter(item.get(), &format!("{place}[{at}]"))).collect()
    }

    /// What must be true of a field: operators, or a value that it must be equal to.
    fn condition(&mut self, raw: &RawValue, place: &str) -> Result<Vec<Test>> {
        if raw.get().starts_with('{') {
            let operators = members(place, raw.get())?;
            if is_operators(&operators) {
                return self.operators(operators, place);
            }
        }
        Ok(vec![Test::Is(query::check(Operator::Eq, raw.get(), place)?)])
    }

    fn operators(&mut self, operators: BTreeMap<String, &RawValue>, place: &str) -> Result<Vec<Test>> {
        let options = operators.get("$options").copied();
        if let (Some(options), false) = (options, operators.contains_key("$regex")) {
            return Err(Error::invalid(
                format!("{place}.$options"),
                options.get(),
                "belongs to a $regex, which is not there",
            ));
        }
        let mut tests = Vec::new();
        for (name, raw) in operators.into_iter().filter(|(name, _)| name != "$options") {
            let place = format!("{place}.{name}");
            self.count(&place)?;
            tests.push(self.operator(&name, raw, options, &place)?);
        }
        Ok(tests)
    }

    fn operator(&mut self, name: &str, raw: &RawValue, options: Option<&RawValue>, place: &str) -> Result<Test> {
        let text = raw.get();
        let is = |operator| query::check(operator, text, place).map(Test::Is);
        let is_not = |operator| Ok(Test::Not(vec![is(operator)?]));
        match name {
            "$eq" => is(Operator::Eq),
            "$ne" => is_not(Operator::Eq),
            "$gt" => is(Operator::Gt),
            "$gte" => is(Operator::Gte),
            "$lt" => is(Operator::Lt),
            "$lte" => is(Operator::Lte),
            "$in" => is(Operator::In),
            "$nin" => is_not(Operator::In),
            "$startsWith" => is(Operator::StartsWith),
            "$contains" => query::check(Operator::Contains, text, place).map(Test::Contains),
            "$regex" if self.regexes == REGEXES => {
                Err(Error::invalid(place, "", format!("a filter may have at most {REGEXES} regular expressions")))
            }
            "$regex" => self.regex(text, options.map(RawValue::get), place).map(Test::Matches),
            "$exists" => match text {
                "true" => Ok(Test::Exists(true)),
                "false" => Ok(Test::Exists(false)),
                _ => Err(Error::invalid(place, text, "must be true or false")),
            },
            "$size" => {
                text.parse().map(Test::Size).map_err(|_| Error::invalid(place, text, "must be a whole number from 0"))
            }
            "$elemMatch" => self.element(text, place).map(Test::Element),
            "$not" => {
                let operators = members(place, text)?;
                if !is_operators(&operators) {
                    return Err(Error::invalid(place, text, "must be an object of operators"));
                }
                self.operators(operators, place).map(Test::Not)
            }
            unknown => Err(Error::invalid(place, unknown, format!("is no operator; these are: {OPERATORS}"))),
        }
    }

    fn regex(&mut self, text: &str, options: Option<&str>, place: &str) -> Result<Regex> {
        self.regexes += 1;
        regex(text, options, place)
    }

    pub(super) fn element(&mut self, text: &str, place: &str) -> Result<Element> {
        let operators = members(place, text)?;
        let between = ["$and", "$or", "$nor"];
        if is_operators(&operators) && !operators.keys().any(|name| between.contains(&name.as_str())) {
            let tests = self.operators(operators, place)?;
            return Ok(Element::Value(tests.into_iter().map(ElementTest).collect()));
        }
        let documents = std::mem::replace(&mut self.documents, false);
        let root = self.filter(text, place);
        self.documents = documents;
        Ok(Element::Object(Matcher { root: root? }))
    }
}

fn regex(text: &str, options: Option<&str>, place: &str) -> Result<Regex> {
    let string = |text: &str, place: &str| {
        serde_json::from_str::<String>(text).map_err(|_| Error::invalid(place, text, "must be a string"))
    };
    let pattern = string(text, place)?;
    if pattern.len() > PATTERN_BYTES {
        let rule = format!("must be a pattern of at most {PATTERN_BYTES} bytes, has {}", pattern.len());
        return Err(Error::invalid(place, "", rule));
    }
    let mut builder = RegexBuilder::new(&pattern);
    builder.size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES);
    if let Some(options) = options {
        for option in string(options, place)?.chars() {
            match option {
                'i' => builder.case_insensitive(true),
                'm' => builder.multi_line(true),
                's' => builder.dot_matches_new_line(true),
                'x' => builder.ignore_whitespace(true),
                _ => return Err(Error::invalid(place, options, "must be options among i, m, s, x")),
            };
        }
    }
    builder.build().map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::invalid(place, &pattern, format!("must be a regular expression without look-around: {why}"))
    })
}
