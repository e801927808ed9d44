//! What the settings say for the clients of one listener.

use std::rc::Rc;

use config::{ListenerOptions, MqttSettings, SessionSettings, Settings};

use crate::effect::ListenerId;
use crate::rate::{ClientRates, TokenBucket};

/// What the settings say for the clients of one listener: its own options, and those of its zone before the broker's
/// (SEED-LSN-11).
#[derive(Debug)]
pub(crate) struct Profile {
    pub mqtt: MqttSettings,
    pub session: SessionSettings,
    pub options: ListenerOptions,
}

impl Profile {
    /// The buckets of a client that connects now; none if nothing limits it.
    pub fn rates(&self, now_ms: u64) -> Option<ClientRates> {
        let messages = self.options.max_publish_rate.or(self.mqtt.max_publish_rate);
        let bucket = |rate: Option<config::Rate>| rate.map(|rate| TokenBucket::new(rate, now_ms));
        let (bytes, messages) = (bucket(self.options.rate_limit), bucket(messages));
        (bytes.is_some() || messages.is_some()).then_some(ClientRates {
            bytes,
            messages,
            rests_until_ms: None,
        })
    }
}

/// The profiles of all listeners.
#[derive(Debug, Clone)]
pub(crate) struct Profiles(Rc<[Profile]>);

impl Profiles {
    pub fn new(settings: &Settings) -> Self {
        let profile = |listener: &config::ListenerSettings| {
            let (mqtt, session) = settings.of_listener(listener);
            Profile {
                mqtt: mqtt.clone(),
                session: session.clone(),
                options: listener.options.clone(),
            }
        };
        Self(settings.listeners.iter().map(profile).collect())
    }

    /// The profile of a listener.
    pub fn of(&self, listener: ListenerId) -> &Profile {
        &self.0[usize::from(listener.0)]
    }
}
