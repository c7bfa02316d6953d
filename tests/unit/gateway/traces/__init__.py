from gateway.traces.recorder import admit_sdk

admit_sdk()  # before a test imports it
