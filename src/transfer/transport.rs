//! How connections are set up: their bounds, timers and sizes.

use std::sync::Arc;
use std::time::Duration;

use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq_proto::{
    ClientConfig, ConnectionId, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};

use super::congestion;
use super::limits::{IDLE, KEEP_ALIVE, SEND_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_MAX};
use super::punch::{TAG_BYTES, Tag};

/// The longest datagram that is taken: any.
const PAYLOAD_BYTES_MAX: u16 = 65_527;
/// Bytes of the connection number that a sender chooses: the tag of its transfer and random ones.
const FIRST_ID_BYTES: usize = 20;
/// A round trip that is assumed where none was measured, and the least that is assumed: the peer may be busy.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(50);
const ROUND_TRIP_MIN: Duration = Duration::from_millis(5);

/// What is known of a path before a connection stands on it.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Measured by punching, if it was.
    pub round_trip: Option<Duration>,
    /// The largest datagram that this machine can send on it.
    pub mtu: u16,
    /// Bytes that a peer may send at first.
    pub window_bytes: u32,
}

/// What holds for all connections of the socket.
pub fn endpoint() -> Arc<EndpointConfig> {
    let mut config = EndpointConfig::default();
    // The first byte of a datagram tells QUIC from all else only if its fixed bit is always there.
    config.grease_quic_bit(false);
    // The default would cap the datagrams that a peer may try. This one is within the bounds that are checked.
    let _ = config.max_udp_payload_size(PAYLOAD_BYTES_MAX);
    Arc::new(config)
}

/// A connection that this side opens: the first packet carries the tag of the transfer, by which the peer knows it.
pub fn client(
    crypto: QuicClientConfig,
    tag: Tag,
    random: [u8; FIRST_ID_BYTES - TAG_BYTES],
    path: Path,
) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut id = [0; FIRST_ID_BYTES];
    id[..TAG_BYTES].copy_from_slice(&tag);
    id[TAG_BYTES..].copy_from_slice(&random);
    config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&id)));
    let mut transport = common(path);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0)).max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    config
}

/// A connection that the peer opens: one control stream, and blocks.
pub fn server(crypto: QuicServerConfig, path: Path) -> Arc<ServerConfig> {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = common(path);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    transport.max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
    config.transport_config(Arc::new(transport));
    Arc::new(config)
}

fn common(path: Path) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(path.mtu);
    let round_trip = path.round_trip.unwrap_or(ROUND_TRIP_UNKNOWN);
    transport
        // Far below the largest number that a timeout can have.
        .max_idle_timeout(IDLE.try_into().ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(round_trip.max(ROUND_TRIP_MIN))
        .mtu_discovery_config(Some(discovery))
        .send_fairness(false)
        .send_window(SEND_WINDOW_BYTES)
        .receive_window(VarInt::from_u32(path.window_bytes))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    congestion::configure(&mut transport, round_trip);
    transport
}
