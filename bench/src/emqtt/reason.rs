//! The names emqtt_bench prints: reason codes of MQTT and errnos.

/// The name of a code in a CONNACK of MQTT 3.1 and 3.1.1.
pub fn connack_v3(code: u8) -> &'static str {
    match code {
        1 => "unacceptable_protocol_version",
        2 => "client_identifier_not_valid",
        3 => "server_unavailable",
        4 => "malformed_username_or_password",
        5 => "unauthorized_client",
        _ => "unknown_error",
    }
}

/// The name of a reason code of MQTT 5.
pub fn code(code: u8) -> &'static str {
    match code {
        0x00 => "success",
        0x04 => "disconnect_with_will_message",
        0x10 => "no_matching_subscribers",
        0x80 => "unspecified_error",
        0x81 => "malformed_packet",
        0x82 => "protocol_error",
        0x83 => "implementation_specific_error",
        0x84 => "unsupported_protocol_version",
        0x85 => "client_identifier_not_valid",
        0x86 => "bad_username_or_password",
        0x87 => "not_authorized",
        0x88 => "server_unavailable",
        0x89 => "server_busy",
        0x8A => "banned",
        0x8B => "server_shutting_down",
        0x8C => "bad_authentication_method",
        0x8D => "keepalive_timeout",
        0x8E => "session_taken_over",
        0x8F => "topic_filter_invalid",
        0x90 => "topic_name_invalid",
        0x91 => "packet_identifier_inuse",
        0x92 => "packet_identifier_not_found",
        0x93 => "receive_maximum_exceeded",
        0x94 => "topic_alias_invalid",
        0x95 => "packet_too_large",
        0x96 => "message_rate_too_high",
        0x97 => "quota_exceeded",
        0x98 => "administrative_action",
        0x99 => "payload_format_invalid",
        0x9A => "retain_not_supported",
        0x9B => "qos_not_supported",
        0x9C => "use_another_server",
        0x9D => "server_moved",
        0x9E => "shared_subscriptions_not_supported",
        0x9F => "connection_rate_exceeded",
        0xA0 => "maximum_connect_time",
        0xA1 => "subscription_identifiers_not_supported",
        0xA2 => "wildcard_subscriptions_not_supported",
        _ => "unknown_error",
    }
}

/// The name of an errno, in small letters as Erlang has it.
pub fn errno(errno: i32) -> String {
    let name = match errno {
        libc::ECONNREFUSED => "econnrefused",
        libc::ECONNRESET => "econnreset",
        libc::ECONNABORTED => "econnaborted",
        libc::ETIMEDOUT => "etimedout",
        libc::EHOSTUNREACH => "ehostunreach",
        libc::ENETUNREACH => "enetunreach",
        libc::EHOSTDOWN => "ehostdown",
        libc::ENETDOWN => "enetdown",
        libc::EADDRNOTAVAIL => "eaddrnotavail",
        libc::EADDRINUSE => "eaddrinuse",
        libc::EMFILE => "emfile",
        libc::ENFILE => "enfile",
        libc::ENOMEM => "enomem",
        libc::ENOBUFS => "enobufs",
        libc::EACCES => "eacces",
        libc::EPERM => "eperm",
        libc::EPIPE => "epipe",
        libc::EINVAL => "einval",
        libc::EAGAIN => "eagain",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}

/// What to do about an errno that is a limit of this machine.
pub fn remedy(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EADDRNOTAVAIL => Some(
            "no local port is left, or a local address is not this machine's: use more addresses (--ifaddr \
             127.0.1.1-127.0.1.60) or widen net.ipv4.ip_local_port_range",
        ),
        libc::EMFILE | libc::ENFILE => {
            Some("the limit of open files is reached: raise `ulimit -n` and fs.file-max")
        }
        libc::ENOMEM | libc::ENOBUFS => {
            Some("the kernel has no memory for more sockets (net.ipv4.tcp_mem)")
        }
        _ => None,
    }
}
