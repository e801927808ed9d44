//! What is asked about all retained messages: a part of a shard's after the other, so that none is kept busy (SEED-CLI-58).

use config::Settings;
use ring::ShardId;
use shard::command::{Reply, Request, RetainerRequest};

use crate::action::{ActionReply, RetainerInfo};
use crate::links::{LinkError, Links};
use crate::node::{ActionError, COMMAND_TIMEOUT};

/// Counts the retained messages and tells their limits.
pub(crate) fn info(links: &Links, settings: &Settings) -> Result<RetainerInfo, LinkError> {
    let (mut messages, mut bytes) = (0, 0);
    for shard in (0..links.shards()).map(ShardId::new) {
        let mut cursor = None;
        loop {
            let request = Request::Retainer(RetainerRequest::Measure { cursor });
            let Reply::RetainedPart(part) = links.ask(shard, request, COMMAND_TIMEOUT)? else {
                unreachable!("a part was asked for")
            };
            messages += part.messages;
            bytes += part.bytes;
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    let limits = &settings.retainer;
    Ok(RetainerInfo {
        messages,
        bytes,
        storage: limits.storage.word(),
        messages_max: (limits.max_message_num < u64::MAX).then_some(limits.max_message_num),
        payload_bytes_max: limits.max_payload_size_bytes,
        expiry_interval_s: limits.expiry_interval_s,
    })
}

/// Removes the retained messages whose topic matches a filter.
pub(crate) fn clean(links: &Links, filter: &str) -> Result<ActionReply, ActionError> {
    let mut removed = 0;
    for shard in (0..links.shards()).map(ShardId::new) {
        let mut cursor = None;
        loop {
            let filter = filter.to_owned();
            let request = Request::Retainer(RetainerRequest::Clean { filter, cursor });
            let part = match links.ask(shard, request, COMMAND_TIMEOUT)? {
                Reply::RetainedPart(part) => part,
                Reply::Unkept => return Err(ActionError::Unkept),
                Reply::Refused(reason) => return Ok(ActionReply::Refused(reason)),
                other => unreachable!("a part was to be removed, the shard answered {other:?}"),
            };
            removed += part.messages;
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(ActionReply::Count(removed))
}
