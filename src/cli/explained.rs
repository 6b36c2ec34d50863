//! How a query was found, for people and for programs.

use serde_json::{Value as Json, json};

use super::{
    failure::Failure,
    output::{self, Output},
};
use crate::client::{Access, Explanation};

/// Says it; `what`: of what the query is.
pub(super) fn answer(out: &Output, explanation: &Explanation, what: &str) -> Result<(), Failure> {
    out.answer(&object(explanation, what), || lines(explanation, what))
}

fn object(explanation: &Explanation, what: &str) -> Json {
    let Explanation { access, sorted, keys_examined, values_examined, returned, building } = explanation;
    let access = match access {
        Access::Scan => json!("scan"),
        Access::Keys => json!("key range"),
        Access::Index { name, fields, ranges, ordered } => {
            json!({ "index": name, "fields": fields, "ranges": ranges, "ordered": ordered })
        }
    };
    json!({
        "access": access, "sorted_in_memory": sorted, "keys_examined": keys_examined,
        (format!("{what}_examined")): values_examined, "returned": returned, "building": building,
    })
}

fn lines(explanation: &Explanation, what: &str) -> String {
    let Explanation { access, sorted, keys_examined, values_examined, returned, building } = explanation;
    let access = match access {
        Access::Scan => "all keys".into(),
        Access::Keys => "a range of the keys".into(),
        Access::Index { name, fields, ranges, ordered } => {
            let order = if *ordered { ", in its order" } else { "" };
            format!("index {} (fields that narrow: {fields}, ranges: {ranges}){order}", output::visible(name))
        }
    };
    let examined = format!("{what} examined");
    let mut lines = vec![
        ("goes through", access),
        ("sorted in memory", if *sorted { "yes" } else { "no" }.into()),
        ("keys examined", keys_examined.to_string()),
        (examined.as_str(), values_examined.to_string()),
        ("returned", returned.to_string()),
    ];
    if !building.is_empty() {
        lines.push(("not built yet", output::visible(&building.join(", ")).into_owned()));
    }
    output::fields(&lines)
}
