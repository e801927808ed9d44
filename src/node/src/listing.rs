//! Listings in pages: one shard after the other, a page only when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use ring::ShardId;
use shard::DelayedId;
use shard::command::{
    DelayedRequest, PAGE_ROWS_MAX, Page, Reply, Request, RetainerRequest, RouteCursor, RouteRow,
    SubscriptionCursor,
};

use crate::action::{Listing, RouteInfo, Rows};
use crate::links::{LinkError, Links};

/// Time a shard has for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a listing stands in one shard.
#[derive(Debug, Clone)]
enum Cursor {
    Index(u32),
    Route(RouteCursor),
    Subscription(SubscriptionCursor),
    Delayed(Option<DelayedId>),
    Retained(Option<String>),
}

/// The pages of a listing. Nothing is asked of a shard before the next page is wanted, so a reader's pace is the listing's.
pub struct Pages {
    links: Arc<Links>,
    node: String,
    listing: Listing,
    /// The shard that is listed; none: the end.
    shard: Option<usize>,
    shard_last: usize,
    cursor: Cursor,
    /// Rows that may still be given, where there is a limit.
    rows_left: u64,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("listing", &self.listing)
            .field("shard", &self.shard)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Pages {
    /// Starts a listing of all shards of the node named `node`; one client's subscriptions are listed at its `home`.
    pub(crate) fn new(links: Arc<Links>, node: String, listing: Listing, home: ShardId) -> Pages {
        let (shard, shard_last) = match listing {
            Listing::ClientSubscriptions { .. } => (home.index(), home.index()),
            _ => (0, links.shards() - 1),
        };
        let cursor = start(&listing);
        let rows_left = match listing {
            Listing::Retained { limit: Some(limit) } => limit,
            _ => u64::MAX,
        };
        Pages { links, node, listing, shard: Some(shard), shard_last, cursor, rows_left }
    }

    /// The next page; it may be empty. None: the listing is complete.
    ///
    /// # Errors
    /// [`LinkError`] if the shard did not answer; the listing ends there.
    pub fn next_page(&mut self) -> Result<Option<Rows>, LinkError> {
        let Some(shard) = self.shard.filter(|_| self.rows_left > 0) else { return Ok(None) };
        let id = ShardId::new(shard);
        let reply = match self.links.ask(id, self.request(), PAGE_TIMEOUT) {
            Ok(reply) => reply,
            Err(error) => {
                self.shard = None;
                return Err(error);
            }
        };
        let (rows, next) = match reply {
            Reply::Clients(page) => (Rows::Clients(page.rows), page.next.map(Cursor::Index)),
            Reply::Sessions(page) => (Rows::Sessions(page.rows), page.next.map(Cursor::Index)),
            Reply::Routes(page) => self.routes(id, page),
            Reply::Subscriptions(page) => {
                (Rows::Subscriptions(page.rows), page.next.map(Cursor::Subscription))
            }
            Reply::ClientSubscriptions(page) => {
                (Rows::Subscriptions(page.rows), page.next.map(Cursor::Index))
            }
            Reply::Delayed(page) => {
                (Rows::Delayed(page.rows), page.next.map(|next| Cursor::Delayed(Some(next))))
            }
            Reply::Retained(mut page) => {
                let left = usize::try_from(self.rows_left).unwrap_or(usize::MAX);
                page.rows.truncate(left);
                self.rows_left -= page.rows.len() as u64;
                (Rows::Retained(page.rows), page.next.map(|next| Cursor::Retained(Some(next))))
            }
            Reply::NotFound => {
                self.shard = None;
                return Ok(None);
            }
            other => unreachable!("a page was asked for, the shard answered {other:?}"),
        };
        self.advance(shard, next);
        Ok(Some(rows))
    }

    fn advance(&mut self, shard: usize, next: Option<Cursor>) {
        match next {
            Some(cursor) => self.cursor = cursor,
            None if shard == self.shard_last => self.shard = None,
            None => {
                self.shard = Some(shard + 1);
                self.cursor = start(&self.listing);
            }
        }
    }

    /// A filter with subscribers on several shards is told by each; the lowest one's word is taken.
    fn routes(&self, id: ShardId, page: Page<RouteRow, RouteCursor>) -> (Rows, Option<Cursor>) {
        let rows = page
            .rows
            .into_iter()
            .filter(|row| row.shards.iter().next().is_none_or(|lowest| lowest == id))
            .map(|row| RouteInfo { filter: row.filter, nodes: vec![self.node.clone()] })
            .collect();
        (Rows::Routes(rows), page.next.map(Cursor::Route))
    }

    fn request(&self) -> Request {
        let limit = PAGE_ROWS_MAX;
        match (&self.listing, self.cursor.clone()) {
            (Listing::Clients, Cursor::Index(cursor)) => Request::ClientsPage { cursor, limit },
            (Listing::Sessions(kind), Cursor::Index(cursor)) => {
                Request::SessionsPage { cursor, limit, kind: *kind }
            }
            (Listing::Routes, Cursor::Route(cursor)) => Request::RoutesPage { cursor, limit },
            (Listing::Subscriptions, Cursor::Subscription(cursor)) => {
                Request::SubscriptionsPage { cursor, limit }
            }
            (Listing::ClientSubscriptions { client_id }, Cursor::Index(offset)) => {
                Request::SubscriptionsShow { client_id: client_id.clone(), offset, limit }
            }
            (Listing::Delayed, Cursor::Delayed(cursor)) => {
                Request::Delayed(DelayedRequest::Page { cursor, limit })
            }
            (Listing::Retained { .. }, Cursor::Retained(cursor)) => {
                Request::Retainer(RetainerRequest::Page { cursor, limit })
            }
            (listing, cursor) => unreachable!("{listing:?} stands at {cursor:?}"),
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Rows, LinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_page().transpose()
    }
}

fn start(listing: &Listing) -> Cursor {
    match listing {
        Listing::Routes => Cursor::Route(RouteCursor::START),
        Listing::Subscriptions => Cursor::Subscription(SubscriptionCursor::START),
        Listing::Clients | Listing::Sessions(_) | Listing::ClientSubscriptions { .. } => {
            Cursor::Index(0)
        }
        Listing::Delayed => Cursor::Delayed(None),
        Listing::Retained { .. } => Cursor::Retained(None),
    }
}

#[cfg(test)]
mod tests;
