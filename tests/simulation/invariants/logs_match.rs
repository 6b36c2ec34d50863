//! If two logs have an entry of the same index and term, they have the same entries up to there; and what one has
//! committed the others do not contradict.

use super::Report;

pub fn check(report: &Report) -> Result<(), String> {
    for (place, (a, left)) in report.logs.iter().enumerate() {
        for (b, right) in report.logs.iter().skip(place + 1) {
            let common = left.entries.iter().filter(|(index, _)| right.entries.contains_key(index));
            let mut agree_below = None;
            let mut differ_at = None;
            for (index, entry) in common {
                let other = &right.entries[index];
                if entry == other {
                    agree_below = Some(*index);
                } else {
                    if entry.0 == other.0 {
                        return Err(format!("nodes {a} and {b} have different entries of term {} at {index}", entry.0));
                    }
                    differ_at = differ_at.or(Some(*index));
                }
            }
            if let (Some(agree), Some(differ)) = (agree_below, differ_at)
                && differ < agree
            {
                return Err(format!("the logs of nodes {a} and {b} differ at {differ} and agree at {agree}"));
            }
            let committed = left.committed.min(right.committed);
            if let Some(differ) = differ_at.filter(|differ| *differ <= committed) {
                return Err(format!("nodes {a} and {b} have committed {committed}, and differ at {differ}"));
            }
        }
    }
    Ok(())
}
