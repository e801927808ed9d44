//! Limits a receiver sets on what it decodes.

/// What a receiver accepts beyond the limits of the format itself. `usize::MAX` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most levels of a topic name or filter (the part after a `$share/group/` prefix).
    pub topic_levels_max: usize,
    /// Most bytes of a topic name or filter, its prefix included; never more than 65,535.
    pub topic_len_max: usize,
    /// Most user properties in one property block.
    pub user_properties_max: usize,
    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_per_packet_max: usize,
}

impl DecodeLimits {
    /// Only the limits of the format itself.
    pub const UNLIMITED: Self = Self {
        topic_levels_max: usize::MAX,
        topic_len_max: usize::MAX,
        user_properties_max: usize::MAX,
        filters_per_packet_max: usize::MAX,
    };
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            topic_levels_max: 128,
            topic_len_max: 65_535,
            user_properties_max: 256,
            filters_per_packet_max: 4_096,
        }
    }
}
