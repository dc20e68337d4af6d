//! Which congestion controller a connection gets: the one place to put another in.
//!
//! On a local network CUBIC, which costs the least time of the processor and leaves pacing to the window. On a longer
//! path BBR3, because CUBIC takes every lost packet for a full queue: at 50 ms and 1 % loss it reaches a fortieth of
//! what the path carries.

use std::sync::Arc;
use std::time::Duration;

use noq_proto::TransportConfig;
use noq_proto::congestion::{Bbr3Config, CubicConfig};

use super::limits::LOCAL_ROUND_TRIP;

/// Chooses the controller for a path with this round trip.
pub fn configure(transport: &mut TransportConfig, round_trip: Duration) {
    if round_trip < LOCAL_ROUND_TRIP {
        transport.congestion_controller_factory(Arc::new(CubicConfig::default()));
    } else {
        transport.congestion_controller_factory(Arc::new(Bbr3Config::default()));
    }
}
