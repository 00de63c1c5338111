"""Many people draw at once: how long do they wait, and does the server's memory grow? Asks a running server.

    lightning-meta demo --no-open &
    python benchmarks/studies/demo_load.py http://127.0.0.1:8000 --server-pid $!

Every client draws symbols of its own, one stroke in ``--pause`` seconds: most are of the symbol that is classified,
some belong to an example, so that the learner adapts again. Prints the answers and how long they took, without the
pauses; the processor time that each took the server, which other programs of the computer do not lengthen as they do
the waits; and the resident memory of the server's process, after half of the time and at the end.
"""

import argparse
import asyncio
import itertools
import random
import time
from typing import Any

import httpx
import numpy as np
import psutil

STROKES = 4  # of a symbol, before the next is begun
NEW_EXAMPLE = 0.05  # of all strokes belong to an example


def stroke(draw: random.Random) -> list[list[float]]:
    """A smooth walk of thirty points over the canvas."""
    steps = np.cumsum([[draw.gauss(0, 1), draw.gauss(0, 1)] for _ in range(30)], 0).cumsum(0)
    steps -= steps.min(0)
    points: list[list[float]] = (0.1 + 0.8 * steps / steps.max()).round(4).tolist()
    return points


async def draw_for(
    client: httpx.AsyncClient, checkpoint: dict[str, Any], pause: float, until: float, seed: int, waits: list[float]
) -> list[str]:
    """Draw until then; appends the seconds of each answer to ``waits`` and returns what went wrong."""
    draw, errors = random.Random(seed), []
    examples = [[stroke(draw), stroke(draw)] for _ in range(checkpoint["ways"])]
    query: list[list[list[float]]] = []
    await asyncio.sleep(draw.uniform(0, pause))
    while time.perf_counter() < until:
        if draw.random() < NEW_EXAMPLE:
            examples[draw.randrange(len(examples))] = [stroke(draw), stroke(draw)]
        query = [*query, stroke(draw)] if len(query) < STROKES else [stroke(draw)]
        classes = [{"name": str(place), "pictures": [{"strokes": own}]} for place, own in enumerate(examples)]
        body = {"checkpoint": checkpoint["name"], "classes": classes, "queries": [{"strokes": query}]}
        start = time.perf_counter()
        try:
            response = await client.post("/api/classify", json=body)
            if response.status_code != 200:
                errors.append(f"{response.status_code} {response.text}")
        except httpx.HTTPError as error:
            errors.append(repr(error))
        waits.append(time.perf_counter() - start)
        await asyncio.sleep(pause * draw.uniform(0.5, 1.5))
    return errors


async def measure(options: argparse.Namespace) -> None:
    """Run all clients, and print what they met."""
    server = psutil.Process(options.server_pid)
    limits = httpx.Limits(max_connections=options.clients)
    async with httpx.AsyncClient(base_url=options.address, timeout=60, limits=limits) as client:
        known = {each["name"]: each for each in (await client.get("/api/checkpoints")).json()}
        pictures = [name for name, each in known.items() if each["kind"] == "pictures"]
        checkpoint = known[options.checkpoint or pictures[0]]
        used = sum(server.cpu_times()[:2])
        until, waits = time.perf_counter() + options.seconds, list[float]()
        clients = asyncio.gather(
            *(draw_for(client, checkpoint, options.pause, until, seed, waits) for seed in range(options.clients))
        )
        await asyncio.sleep(options.seconds / 2)  # until what the server keeps has reached its bound
        before = server.memory_info().rss
        errors = list(itertools.chain.from_iterable(await clients))
        used = sum(server.cpu_times()[:2]) - used
    p50, p95 = np.percentile(waits, [50, 95])
    print(
        f"{checkpoint['name']}: {options.clients} clients, {options.seconds} s, {len(waits)} requests, "
        f"{len(errors)} errors, p50 {1e3 * p50:.0f} ms, p95 {1e3 * p95:.0f} ms, longest {1e3 * max(waits):.0f} ms, "
        f"{1e3 * used / len(waits):.0f} ms of a core for each, "
        f"memory of the server {before / 2**20:.0f} -> {server.memory_info().rss / 2**20:.0f} MiB"
    )
    for error in sorted(set(errors))[:5]:
        print(f"  {error}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--checkpoint", help="its name (default: the first of pictures)")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between a client's strokes, in the mean")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
