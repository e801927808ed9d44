//! What the settings say for the clients of one listener.

use std::rc::Rc;

use config::{ListenerOptions, MqttSettings, SessionSettings, Settings};

use crate::effect::ListenerId;

/// What the settings say for the clients of one listener: its own options, and those of its zone before the broker's
/// (SEED-LSN-11).
#[derive(Debug)]
pub(crate) struct Profile {
    pub mqtt: MqttSettings,
    pub session: SessionSettings,
    pub options: ListenerOptions,
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
