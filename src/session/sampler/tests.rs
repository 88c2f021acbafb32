use super::*;

const LOGITS: [f32; 16] =
    [1.5, -0.25, 3.0, 2.0, 2.0, -4.0, 0.0, 2.75, 1.0, -1.5, 2.0, 0.5, -30.0, 2.5, 1.25, -0.75];

/// Temperature, top-k, top-p, min-p, repeat penalty, recent ids → id:probability of the tokens that
/// stay. Made with transformers 5.23.0 on `LOGITS`: RepetitionPenaltyLogitsProcessor,
/// TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper (each where it is
/// on), then softmax in f64, rounded to six places.
const REFERENCE: &str = "
    1.0 0 1.0 0.0 1.0 - 0:0.052782 1:0.009172 2:0.236552 3:0.087023 4:0.087023 5:0.000216
        6:0.011777 7:0.184227 8:0.032014 9:0.002628 10:0.087023 11:0.019417 12:0.000000
        13:0.143476 14:0.041107 15:0.005563;
    1.0 3 1.0 0.0 1.0 - 2:0.419229 7:0.326496 13:0.254275;
    1.0 4 1.0 0.0 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
    1.0 5 1.0 0.0 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
    0.7 8 1.0 0.0 1.0 - 0:0.037753 2:0.321795 3:0.077118 4:0.077118 7:0.225151 10:0.077118
        13:0.157532 14:0.026415;
    1.0 0 0.9 0.0 1.0 - 0:0.057421 2:0.257342 3:0.094671 4:0.094671 7:0.200418 10:0.094671
        13:0.156086 14:0.044719;
    1.0 0 0.5 0.0 1.0 - 2:0.419229 7:0.326496 13:0.254275;
    1.0 0 0.05 0.0 1.0 - 2:1.000000;
    1.5 0 0.75 0.0 1.0 - 0:0.082279 2:0.223656 3:0.114829 4:0.114829 7:0.189321 10:0.114829
        13:0.160257;
    1.0 0 1.0 0.3 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
    0.5 0 1.0 0.5 1.0 - 2:0.622459 7:0.377541;
    1.3 6 0.8 0.0 1.0 - 2:0.291332 4:0.134995 7:0.240365 10:0.134995 13:0.198314;
    1.0 64 0.95 0.0 1.0 - 0:0.055488 2:0.248681 3:0.091485 4:0.091485 7:0.193673 8:0.033655
        10:0.091485 13:0.150833 14:0.043214;
    2.0 10 0.9 0.4 1.0 - 0:0.087962 2:0.186216 3:0.112945 4:0.112945 7:0.164335 10:0.112945
        13:0.145025 14:0.077626;
    1.0 5 1.0 0.0 1.3 2,7,7,5,6 2:0.190748 3:0.140227 4:0.140227 7:0.157377 10:0.140227
        13:0.231195;
    1.0 0 0.85 0.0 2.0 3,12,0,13 2:0.333618 4:0.122731 7:0.259822 8:0.045150 10:0.122731
        13:0.057974 14:0.057974;
    1.0 0 1.0 0.2 0.5 1,8 0:0.054689 2:0.245099 3:0.090167 4:0.090167 7:0.190884 8:0.090167
        10:0.090167 13:0.148660;
    1.0 0 0.0 0.0 1.0 - 2:1.000000;
    1.0 0 0.62 0.0 1.0 - 2:0.363212 7:0.282870 10:0.133618 13:0.220299;
";

fn off() -> SamplerOptions {
    SamplerOptions { top_k: 0, top_p: 1.0, seed: Some(1), ..Default::default() }
}

/// The tokens that may be drawn and their probabilities, by id.
fn distribution(sampler: &mut Sampler, logits: &[f32]) -> Vec<(u32, f64)> {
    let mut logits = logits.to_vec();
    sampler.penalize(&mut logits);
    let weight = sampler.weight(greatest(&logits).unwrap().logit);
    let mut kept = Vec::new();
    sampler.options.filter(&logits, &weight, &mut kept);
    let total: f64 = kept.iter().map(|candidate| weight(candidate.logit)).sum();
    let mut by_id: Vec<_> = kept.iter().map(|c| (c.id, weight(c.logit) / total)).collect();
    by_id.sort_by_key(|(id, _)| *id);
    by_id
}

fn ids(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().copied().map(TokenId).collect()
}

#[test]
fn the_distribution_is_the_reference_s() {
    for row in REFERENCE.split_terminator(';').map(str::trim).filter(|row| !row.is_empty()) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let number = |i: usize| words[i].parse().unwrap();
        let options = SamplerOptions {
            temperature: number(0),
            top_k: words[1].parse().unwrap(),
            top_p: number(2),
            min_p: number(3),
            repeat_penalty: number(4),
            ..off()
        };
        let recent = words[5].split(',').filter_map(|id| id.parse().ok()).map(TokenId);
        let expected = words[6..].iter().map(|word| {
            let (id, probability) = word.split_once(':').unwrap();
            (id.parse::<u32>().unwrap(), probability.parse::<f64>().unwrap())
        });

        let mut sampler = Sampler::new(options).unwrap();
        sampler.remember(&recent.collect::<Vec<_>>());
        let found = distribution(&mut sampler, &LOGITS);
        assert_eq!(found.len(), expected.len(), "{row}: {found:?}");
        for (a, b) in found.iter().zip(expected) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 2e-6, "{row}: {found:?}");
        }
    }
}

#[test]
fn draws_follow_the_distribution() {
    const DRAWS: usize = 40_000;
    let options = SamplerOptions { temperature: 1.3, top_k: 6, top_p: 0.8, ..off() };
    let mut sampler = Sampler::new(options).unwrap();
    let mut counts = [0_usize; LOGITS.len()];
    for _ in 0..DRAWS {
        counts[sampler.sample(&LOGITS).unwrap().0 as usize] += 1;
    }
    let expected = distribution(&mut sampler, &LOGITS);
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), expected.len());
    for (id, p) in expected {
        let part = counts[id as usize] as f64 / DRAWS as f64;
        // Five standard deviations.
        assert!((part - p).abs() < 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt(), "{id}: {part} {p}");
    }
}

#[test]
fn a_large_vocabulary_is_cut_like_a_sorted_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // Steps of 1/64 make many ties.
    let logits: Vec<f32> =
        (0..50_000).map(|_| (rng.random::<f32>() * 640.0).round() / 64.0).collect();
    let mut order: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    for k in [1, 2, 64, 300, 49_999, 50_000, 60_000] {
        let bar = order[k.min(order.len()) - 1].0;
        let mut kept = Vec::new();
        top_k(&logits, k, &mut kept);
        let expected = logits.iter().zip(0..).filter(|(l, _)| **l >= bar).map(|(_, id)| id);
        assert!(kept.iter().map(|c| c.id).eq(expected), "k {k}");
    }
    for p in [0.0, 0.001, 0.3, 0.95, 0.999_999] {
        let weight = |logit: f32| f64::from(logit - 10.0).exp();
        let total: f64 = logits.iter().map(|&l| weight(l)).sum();
        let mut above = 0.0;
        let expected: Vec<u32> = order
            .iter()
            .enumerate()
            .take_while(|(at, (logit, _))| {
                let stays = *at == 0 || above < p * total;
                above += weight(*logit);
                stays
            })
            .map(|(_, (_, id))| *id)
            .collect();
        let mut kept = Vec::new();
        top_k(&logits, 0, &mut kept);
        top_p(&mut kept, p, weight);
        assert_eq!(kept.iter().map(|c| c.id).collect::<Vec<_>>(), expected, "p {p}");
    }
}

#[test]
fn greedy_takes_the_lowest_of_the_greatest() {
    let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..off() }).unwrap();
    let mut logits = vec![-5.0; 5000];
    assert_eq!(sampler.sample(&logits), Ok(TokenId(0)));
    (logits[1500], logits[1501], logits[4000]) = (-0.0, 0.0, 0.0);
    assert_eq!(sampler.sample(&logits), Ok(TokenId(1500)));
    logits[4999] = 0.25;
    assert_eq!(sampler.sample(&logits), Ok(TokenId(4999)));
}

#[test]
fn greedy_feels_the_repeat_penalty() {
    let options =
        SamplerOptions { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..off() };
    let mut sampler = Sampler::new(options).unwrap();
    let logits = [4.0, 3.0, 2.5, -1.0];
    // An id past the logits has none to change.
    sampler.remember(&ids(&[2, 0, 99]));
    assert_eq!(sampler.sample(&logits), Ok(TokenId(1)));
    sampler.accept(TokenId(1));
    assert_eq!(sampler.sample(&logits), Ok(TokenId(0)));
    sampler.accept(TokenId(0));
    assert_eq!(sampler.sample(&logits), Ok(TokenId(2)));
}

#[test]
fn a_tiny_temperature_is_greedy() {
    let options = SamplerOptions { temperature: f32::MIN_POSITIVE, ..off() };
    let mut sampler = Sampler::new(options).unwrap();
    for _ in 0..100 {
        assert_eq!(sampler.sample(&LOGITS), Ok(TokenId(2)));
    }
}

#[test]
fn what_is_not_finite_is_named() {
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(SamplerOptions { temperature, ..off() }).unwrap();
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            let mut logits = vec![1.0; 3000];
            (logits[2500], logits[2900]) = (value, f32::NAN);
            match sampler.sample(&logits) {
                Err(SamplerError::NotFinite { id, value: found }) => {
                    assert_eq!((id, found.to_bits()), (TokenId(2500), value.to_bits()));
                }
                other => panic!("{value}: {other:?}"),
            }
        }
        assert_eq!(sampler.sample(&[]), Err(SamplerError::NoLogits));
    }
}

#[test]
fn a_restored_sampler_goes_on_as_if_never_stopped() {
    let options = SamplerOptions { repeat_penalty: 1.1, repeat_last_n: 3, ..off() };
    let mut sampler = Sampler::new(options.clone()).unwrap();
    let draw = |sampler: &mut Sampler| {
        let id = sampler.sample(&LOGITS).unwrap();
        sampler.accept(id);
        id
    };
    for _ in 0..17 {
        draw(&mut sampler);
    }
    let saved = serde_json::to_string(&sampler.state()).unwrap();
    let expected: Vec<_> = (0..50).map(|_| draw(&mut sampler)).collect();
    let mut other = Sampler::new(SamplerOptions { seed: None, ..options.clone() }).unwrap();
    other.restore(serde_json::from_str(&saved).unwrap());
    assert_eq!((0..50).map(|_| draw(&mut other)).collect::<Vec<_>>(), expected);

    let again = |seed| {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..options.clone() }).unwrap();
        (0..50).map(|_| draw(&mut sampler)).collect::<Vec<_>>()
    };
    assert_eq!(again(Some(1)), again(Some(1)));
    assert_ne!(again(Some(1)), again(Some(2)));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let wrong = [
        SamplerOptions { temperature: -0.5, ..off() },
        SamplerOptions { temperature: f32::NAN, ..off() },
        SamplerOptions { top_p: 1.5, ..off() },
        SamplerOptions { min_p: -0.1, ..off() },
        SamplerOptions { repeat_penalty: 0.0, ..off() },
    ];
    let messages = wrong.map(|options| Sampler::new(options).unwrap_err().to_string());
    assert_eq!(
        messages,
        [
            "temperature is -0.5, it must be 0 (always the likeliest token) or a positive number",
            "temperature is NaN, it must be 0 (always the likeliest token) or a positive number",
            "top-p is 1.5, it must be from 0 to 1",
            "min-p is -0.1, it must be from 0 to 1",
            "repeat penalty is 0, it must be a positive number (1 for no penalty)",
        ]
    );
}
