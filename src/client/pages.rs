//! All pages of a list.

use super::{Page, PageRequest};
use crate::{Error, Result, limits};

/// How often a list is begun anew because the revision that it shows was given up meanwhile.
pub(super) const MOST_STARTS: u32 = 3;

/// All items of a list, which `page` gets page by page; all pages show one revision.
pub(super) async fn all<T, F>(page: impl Fn(PageRequest) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Page<T>>>,
{
    begun(MOST_STARTS, page).await
}

/// The same of a list that cannot be begun anew, since what comes before is not in it.
pub(super) async fn once<T, F>(page: impl Fn(PageRequest) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Page<T>>>,
{
    begun(1, page).await
}

async fn begun<T, F>(most: u32, page: impl Fn(PageRequest) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Page<T>>>,
{
    let limit = u32::try_from(limits::PAGE_MAX).unwrap_or(u32::MAX);
    let (mut items, mut cursor, mut starts) = (Vec::new(), String::new(), 1);
    loop {
        match page(PageRequest { limit, cursor }).await {
            Ok(mut next) => {
                items.append(&mut next.items);
                cursor = next.next_cursor;
                if cursor.is_empty() {
                    return Ok(items);
                }
            }
            Err(Error::ViewTooOld { .. }) if starts < most => {
                starts += 1;
                items.clear();
                cursor = String::new();
            }
            Err(error) => return Err(error),
        }
    }
}
