"""The training indices of the official splits, by a table of their digests.

The table was made with Python alone: `random.Random(round * 12345).shuffle(list(range(n)))`, the
first `int(round(0.8 * n))` of it joined by commas, SHA-256, eight digits.
"""

import hashlib

import pytest

from glpi_jax.data.splits import official_seed, official_split

# Database: (index numbers n, digests of rounds 1 to 10)
TABLE = {
    "live": (
        29,
        "60567ec9 4e685d11 596a8b50 f59c4370 ede97072 e964641c e40558c5 4c6fbba1 aefd9ef2 d6afeefc",
    ),
    "csiq": (
        30,
        "63a3158a a00afb5a 6b58d98e d199d44d c41c4445 62704c2a 5e2c3e02 252d76a3 df959e57 0669a689",
    ),
    "tid2013": (
        25,
        "d28341bf 78ca78db 6e434437 0ea5b4d8 7b86de3f 9c2edea2 a2dd70cc f079376b fea47f72 ba98b489",
    ),
    "kadid10k": (
        81,
        "96888053 0a8a0054 9036b3cc 0813f262 e7e8f703 0a19b144 5f7dd380 99f5b84f 8d7a1775 4b4facdb",
    ),
    "livemd": (
        15,
        "51475fc5 bee63227 5044dea8 8f9cda6a 3cfd58f3 2a808215 fcd2adc6 6f416f0a 49502191 6b51bc5f",
    ),
    "bid": (
        586,
        "153409b8 278bd529 302cdb25 b86f1067 1ff2411a 0759695e ed73610c 21304af5 06e1b88b e2446e25",
    ),
    "clive": (
        1162,
        "23befe02 a880da5f 50f2cc37 6b00b305 2a0b5467 1d2c52f8 ad8617f8 1765e075 d9c132ed faaf3145",
    ),
    "koniq10k": (
        10073,
        "46cdf942 e1f56ba8 7bd663d7 0e46ac04 24b57a46 8623b8bb 6ee918c6 5c33c7fe 67e7726d 1a9b3d6e",
    ),
    "spaq": (
        11125,
        "cfd8f546 bd8a7042 c0e32d24 b3694ca5 65f3cf3b 342fc4f4 53f4a8f2 c5622e1c 63790643 ea6fef00",
    ),
    "flive": (
        39810,
        "cd0c7cbe 26d84ff2 978096fb d4ad9ef4 5e2be072 64dcbf4b 8b037e0d e078af76 1a3a1342 38deb45d",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_training_indices(name: str) -> None:
    count, digests = TABLE[name]
    for number, digest in enumerate(digests.split(), start=1):
        train, test = official_split(range(count), train_fraction=0.8, seed=official_seed(number))
        text = ",".join(map(str, train))
        assert hashlib.sha256(text.encode()).hexdigest()[:8] == digest
        assert sorted(train + test) == list(range(count))
