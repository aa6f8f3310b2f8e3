//! Opus offered and answered (RFC 7587), and the clock of telephone-event beside it.
#![cfg(feature = "opus")]

use super::*;

fn wide() -> Local {
    Local { codecs: vec![Codec::Opus, Codec::Pcmu], ..local() }
}

/// As a browser's gateway offers it.
const OFFER: &str = "m=audio 5000 RTP/AVP 109 9 0 8 110 126\r\na=rtpmap:109 opus/48000/2\r\n\
                     a=fmtp:109 minptime=10;useinbandfec=1;maxaveragebitrate=16000; cbr=1\r\n\
                     a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n";

#[test]
fn it_is_answered_with_the_peers_numbers_and_events_of_its_clock() {
    let (bytes, agreed) = answer(&sdp(OFFER), &wide()).unwrap();
    let opus = Opus {
        sent: 109,
        received: 109,
        bitrate_max: Some(16_000),
        constant: true,
        recovers: true,
    };
    assert_eq!((agreed.codec, agreed.opus), (Codec::Opus, Some(opus)));
    assert_eq!((agreed.events_out, agreed.events_in), (Some((110, 48_000)), Some((110, 48_000))));
    let text = text_of(bytes);
    assert!(text.contains("m=audio 4000 RTP/AVP 109 110\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:109 opus/48000/2\r\n"), "{text}");
    assert!(text.contains("a=fmtp:109 maxplaybackrate=8000;"), "{text}");
    assert!(text.contains("a=rtpmap:110 telephone-event/48000\r\na=fmtp:110 0-16\r\n"), "{text}");
    assert!(!text.contains("126"), "{text}");
    // The same offer to who wants G.711: events of its clock.
    let (_, agreed) = answer(&sdp(OFFER), &local()).unwrap();
    assert_eq!((agreed.codec, agreed.opus), (Codec::Pcmu, None));
    assert_eq!(agreed.events_out, Some((126, 8_000)));
    // Who offers but one kind of events gets that.
    let narrow = OFFER.replace(" 110 126", " 126");
    let (bytes, agreed) = answer(&sdp(&narrow), &wide()).unwrap();
    assert_eq!((agreed.codec, agreed.events_in), (Codec::Opus, Some((126, 8_000))));
    assert!(text_of(bytes).contains("a=rtpmap:126 telephone-event/8000\r\n"));
}

#[test]
fn what_is_no_opus_is_not_taken_for_it() {
    for (line, codec) in [
        ("m=audio 5000 RTP/AVP 109 0\r\na=rtpmap:109 OPUS/48000/2\r\n", Codec::Opus),
        ("m=audio 5000 RTP/AVP 35 0\r\na=rtpmap:35 opus/48000\r\n", Codec::Opus),
        // Another clock, not in the list, mapped to nothing, a static number, one of RTCP's.
        ("m=audio 5000 RTP/AVP 109 0\r\na=rtpmap:109 opus/16000\r\n", Codec::Pcmu),
        ("m=audio 5000 RTP/AVP 96 0\r\na=rtpmap:109 opus/48000/2\r\n", Codec::Pcmu),
        ("m=audio 5000 RTP/AVP 111 0\r\n", Codec::Pcmu),
        ("m=audio 5000 RTP/AVP 8 0\r\na=rtpmap:8 opus/48000/2\r\n", Codec::Pcmu),
        ("m=audio 5000 RTP/AVP 72 0\r\na=rtpmap:72 opus/48000/2\r\n", Codec::Pcmu),
    ] {
        assert_eq!(answer(&sdp(line), &wide()).unwrap().1.codec, codec, "{line}");
    }
    let only = sdp("m=audio 5000 RTP/AVP 109\r\na=rtpmap:109 opus/48000/2\r\n");
    assert_eq!(answer(&only, &local()).unwrap_err().status(), 488, "not in the profile");
}

#[test]
fn wishes_that_make_no_sense_are_none() {
    for (fmtp, bitrate_max, recovers) in [
        ("a=fmtp:109 maxaveragebitrate=x;useinbandfec=yes\r\n", None, false),
        ("a=fmtp:109 maxaveragebitrate=1\r\n", Some(6_000), false),
        ("a=fmtp:109 maxaveragebitrate=99999999999\r\n", None, false),
        ("a=fmtp:110 useinbandfec=1\r\n", None, false),
        ("a=fmtp:109 UseInBandFEC = 1 ;;=;stereo=1;usedtx=1;sprop-stereo=1\r\n", None, true),
        ("a=fmtp:109\r\na=fmtp\r\n", None, false),
    ] {
        let media = format!("m=audio 5000 RTP/AVP 109\r\na=rtpmap:109 opus/48000/2\r\n{fmtp}");
        let opus = answer(&sdp(&media), &wide()).unwrap().1.opus.unwrap();
        assert_eq!((opus.bitrate_max, opus.recovers), (bitrate_max, recovers), "{fmtp}");
    }
}

#[test]
fn our_offer_has_both_clocks_and_the_answer_may_have_other_numbers() {
    let text = text_of(offer(&wide()));
    assert!(text.contains("m=audio 4000 RTP/AVP 111 0 110 101\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:111 opus/48000/2\r\n"), "{text}");
    assert!(text.contains(";useinbandfec=1\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:110 telephone-event/48000\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\n"), "{text}");
    let theirs = sdp("m=audio 6000 RTP/AVP 96 97\r\na=rtpmap:96 opus/48000/2\r\n\
                      a=rtpmap:97 telephone-event/48000\r\n");
    let agreed = accept(&theirs, &wide()).unwrap();
    let opus = agreed.opus.unwrap();
    assert_eq!((agreed.codec, opus.sent, opus.received), (Codec::Opus, 96, 111));
    assert_eq!((agreed.events_out, agreed.events_in), (Some((97, 48_000)), Some((110, 48_000))));
    let narrow = sdp("m=audio 6000 RTP/AVP 111 101\r\na=rtpmap:111 opus/48000/2\r\n\
                      a=rtpmap:101 telephone-event/8000\r\n");
    let agreed = accept(&narrow, &wide()).unwrap();
    assert_eq!((agreed.events_out, agreed.events_in), (Some((101, 8_000)), Some((101, 8_000))));
    // G.711 in the answer: nothing of Opus is left.
    let agreed = accept(&sdp("m=audio 6000 RTP/AVP 0\r\n"), &wide()).unwrap();
    assert_eq!((agreed.codec, agreed.opus), (Codec::Pcmu, None));
    let both = answer(&offer(&wide()), &wide()).unwrap();
    assert_eq!(accept(&both.0, &wide()).unwrap().events_out, Some((110, 48_000)));
}

#[test]
fn comfort_noise_of_another_clock_is_not_agreed_on_beside_it() {
    let noisy = Local { silence: Silence::ComfortNoise, ..wide() };
    let offered = sdp("m=audio 5000 RTP/AVP 109 0 13\r\na=rtpmap:109 opus/48000/2\r\n");
    let (bytes, agreed) = answer(&offered, &noisy).unwrap();
    assert_eq!((agreed.codec, agreed.silence), (Codec::Opus, Silence::Packets));
    assert!(text_of(bytes).contains("m=audio 4000 RTP/AVP 109\r\n"));
}
