"""How much longer `import attnviz` takes than `import numpy`: whole processes, interleaved.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


pairs = [(seconds("import attnviz"), seconds("import numpy")) for _ in range(21)]
ours, numpy = (statistics.median(times) for times in zip(*pairs, strict=True))
print(f"import attnviz {ours:.3f} s, import numpy {numpy:.3f} s, ratio {ours / numpy:.2f}")
