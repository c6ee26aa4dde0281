"""Documents of the test tasks."""

import random


def documents(seed, count=60):
    generator = random.Random(seed)
    found = []
    for at in range(count):
        a, b = generator.randrange(10), generator.randrange(10)
        found.append(
            {
                "id": at,
                "question": f"{a} and {b}",
                "choices": ["red ball", "blue", "a green one"],
                "answer": generator.randrange(3),
                "text": f"cup {a}: red blue -> {b}. " * (1 + at % 9),
            }
        )
    return found


def load(**kwargs):
    from datasets import Dataset

    return {"test": Dataset.from_list(documents(0)), "train": Dataset.from_list(documents(1))}


def load_twice(**kwargs):
    from datasets import Dataset

    rows = documents(0)
    return {"test": Dataset.from_list([*rows, rows[7]])}


def load_nothing(**kwargs):
    from datasets import Dataset

    return {"test": Dataset.from_list(documents(0)).select([])}
