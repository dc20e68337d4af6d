//! Any event at all, for property tests.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{Addressee, Event, FileOffer, LogoutReason, Origin, Outcome, TransferPath};
use crate::clock::Timestamp;
use crate::names::{DeviceName, GroupName, Text, TransferId, UserName};

fn user() -> impl Strategy<Value = UserName> {
    "[A-Za-z0-9._-]{1,32}".prop_map(|name| name.parse().unwrap())
}

fn group() -> impl Strategy<Value = GroupName> {
    "[A-Za-z0-9]{1,32}".prop_map(|name| name.parse().unwrap())
}

fn device() -> impl Strategy<Value = DeviceName> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|name| name.parse().unwrap())
}

fn transfer() -> impl Strategy<Value = TransferId> {
    "[0-9a-f]{32}".prop_map(|name| name.parse().unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    any::<String>().prop_filter_map("a text is not empty", |text| text.parse().ok())
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    option::of((device(), 1..1_u64 << 53).prop_map(|(device, id)| Origin { device, id }))
}

fn file() -> impl Strategy<Value = FileOffer> {
    (any::<String>(), any::<u64>()).prop_map(|(name, size)| FileOffer { name, size })
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

/// Any event at all.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    use LogoutReason as R;
    let reason =
        prop_oneof![Just(R::Logout), Just(R::Disconnected), Just(R::Timeout), Just(R::Replaced), Just(R::Shutdown)];
    let outcome =
        prop_oneof![Just(Outcome::Done), Just(Outcome::Declined), Just(Outcome::Cancelled), Just(Outcome::Failed)];
    let path = prop_oneof![Just(TransferPath::Direct), Just(TransferPath::Relay)];
    prop_oneof![
        (user(), user(), text(), origin()).prop_map(|(from, to, text, origin)| Event::Message {
            from,
            to,
            text,
            origin
        }),
        (group(), user(), text(), origin()).prop_map(|(group, from, text, origin)| Event::GroupMessage {
            group,
            from,
            text,
            origin
        }),
        (group(), user(), vec(user(), 0..4), origin()).prop_map(|(group, by, invited, origin)| Event::GroupCreated {
            group,
            by,
            invited,
            origin
        }),
        (group(), user(), vec(user(), 0..4), origin()).prop_map(|(group, by, invited, origin)| Event::GroupInvited {
            group,
            by,
            invited,
            origin
        }),
        (group(), user(), origin()).prop_map(|(group, user, origin)| Event::GroupJoined { group, user, origin }),
        (group(), user(), origin()).prop_map(|(group, user, origin)| Event::GroupLeft { group, user, origin }),
        (user(), any::<u64>(), ip(), option::of(any::<u16>()), option::of(device()))
            .prop_map(|(user, session, ip, udp_port, device)| Event::Login { user, session, ip, udp_port, device }),
        (user(), ip(), any::<u32>()).prop_map(|(user, ip, failures)| Event::LoginFailed { user, ip, failures }),
        (user(), any::<u64>()).prop_map(|(user, ms)| Event::UserBlocked { user, until: Timestamp::from_ms(ms) }),
        (user(), any::<u64>(), reason).prop_map(|(user, session, reason)| Event::Logout { user, session, reason }),
        (user(), user(), transfer(), vec(file(), 0..3))
            .prop_map(|(from, to, transfer, files)| Event::TransferOffered { from, to, transfer, files }),
        (transfer(), user(), any::<bool>()).prop_map(|(transfer, user, accept)| Event::TransferAnswered {
            transfer,
            user,
            accept
        }),
        (transfer(), outcome, option::of(any::<u64>()), option::of(any::<String>()), option::of(path)).prop_map(
            |(transfer, outcome, bytes, hash, path)| Event::TransferEnded { transfer, outcome, bytes, hash, path }
        ),
        (user(), option::of(device()), any::<String>()).prop_map(|(user, device, key)| Event::KeyBound {
            user,
            device,
            key
        }),
        (any::<String>(), any::<String>(), vec(any::<u64>(), 0..4)).prop_map(|(by, reason, erased)| Event::Erasure {
            by,
            reason,
            erased
        }),
        (
            user(),
            prop_oneof![user().prop_map(Addressee::User), group().prop_map(Addressee::Group)],
            origin(),
            "[0-9a-f]{64}"
        )
            .prop_map(|(from, to, origin, leaf)| Event::Erased { from, to, origin, leaf }),
        any::<String>().prop_map(|version| Event::ServerStarted { version }),
        any::<String>().prop_map(|version| Event::ServerStopped { version }),
    ]
}
