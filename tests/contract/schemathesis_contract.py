"""schemathesis against /openapi.json: python schemathesis_contract.py NANOCHAT [RUN]"""
import pathlib
import subprocess
import sys
import tempfile

import server

with tempfile.TemporaryDirectory() as folder, server.running(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None) as url:
    tool = pathlib.Path(sys.executable).parent / "schemathesis"
    # positive_data_acceptance: what no schema can say (a context's length, an answer's first role) is refused all the same.
    code = subprocess.run([tool, "run", url + "/openapi.json", "--seed", "1", "--max-examples", "30", "--request-timeout", "60",
                           "--exclude-checks", "positive_data_acceptance,unsupported_method", "--suppress-health-check", "all"], cwd=folder).returncode
    assert server.get(url, "/health")[0] == 200
sys.exit(code)
