//! Listings against threads that play the shards.

use std::thread;

use crossbeam_channel::{Sender, bounded};
use ring::ShardSet;
use shard::command::{Command, SubscriptionRow};

use super::*;
use crate::links::{COMMANDS_MAX, Doorbell, replies_max};

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

/// Links to shards that answer by `answer(shard, request)`.
fn played(shards: usize, answer: fn(usize, Request) -> Reply) -> Arc<Links> {
    let (replies, received) = bounded::<(u64, Reply)>(replies_max(shards));
    let mut ends: Vec<(Sender<Command>, Box<dyn Doorbell>)> = Vec::new();
    for shard in 0..shards {
        let (sender, commands) = bounded::<Command>(COMMANDS_MAX);
        ends.push((sender, Box::new(Silent)));
        let replies = replies.clone();
        thread::spawn(move || {
            for command in commands {
                replies.send((command.token, answer(shard, command.request))).unwrap();
            }
        });
    }
    let links = Arc::new(Links::new(ends));
    let resolver = Arc::clone(&links);
    thread::spawn(move || {
        for (token, reply) in received {
            resolver.resolve(token, reply);
        }
    });
    links
}

fn pages(links: &Arc<Links>, listing: Listing) -> Pages {
    Pages::new(Arc::clone(links), "ringmq@here".to_owned(), listing, ShardId::new(1))
}

#[test]
fn a_route_on_several_shards_is_listed_once_by_the_lowest() {
    let links = played(3, |shard, request| {
        assert!(matches!(request, Request::RoutesPage { .. }), "{request:?}");
        let shared =
            RouteRow { filter: "all/#".into(), shards: ShardSet::first(3), subscribers: 1 };
        let own = [ShardId::new(shard)].into_iter().collect();
        let own = RouteRow { filter: format!("own/{shard}"), shards: own, subscribers: 1 };
        Reply::Routes(Page { rows: vec![shared, own], next: None })
    });
    let mut filters = Vec::new();
    for rows in pages(&links, Listing::Routes) {
        let Rows::Routes(rows) = rows.unwrap() else { panic!("routes") };
        filters.extend(rows.into_iter().map(|row| {
            assert_eq!(row.nodes, ["ringmq@here"]);
            row.filter
        }));
    }
    assert_eq!(filters, ["all/#", "own/0", "own/1", "own/2"]);
}

#[test]
fn an_empty_page_is_not_the_end() {
    let links = played(2, |_, request| {
        let Request::ClientsPage { cursor, .. } = request else { panic!("{request:?}") };
        let next = (cursor < 3).then_some(cursor + 1);
        Reply::Clients(Page { rows: Vec::new(), next })
    });
    assert_eq!(pages(&links, Listing::Clients).count(), 2 * 4);
}

#[test]
fn one_clients_subscriptions_are_asked_of_its_home_only() {
    let links = played(3, |shard, request| {
        assert_eq!(shard, 1);
        let Request::SubscriptionsShow { client_id, offset, .. } = request else {
            panic!("{request:?}")
        };
        let row = SubscriptionRow {
            client_id,
            filter: format!("t/{offset}"),
            qos: mqtt::QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: mqtt::RetainHandling::SendAtSubscribe,
            subscription_id: None,
        };
        let next = (offset < 2).then_some(offset + 1);
        Reply::ClientSubscriptions(Page { rows: vec![row], next })
    });
    let listing = Listing::ClientSubscriptions { client_id: "c".into() };
    let rows: Vec<Rows> = pages(&links, listing).map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
}

#[test]
fn subscriptions_of_nobody_have_no_page() {
    let links = played(3, |_, _| Reply::NotFound);
    let listing = Listing::ClientSubscriptions { client_id: "c".into() };
    assert!(pages(&links, listing).next().is_none());
}
